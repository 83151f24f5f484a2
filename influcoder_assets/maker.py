"""What an asset is here: a node of the graph, and the function that makes one artifact of it.

The functions are written once, in `corpus`, `teacher`, `encoder` and `curation`, and decorated with
`asset_maker`. The assets that Dagster shows and the steps of the refresh job both run them through
`make`, so a click in the UI and the schedule do exactly the same.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influcoder_assets.config import Settings
from influcoder_assets.workspace import Workspace
from influcoder_lib import memory, refresh
from influcoder_lib.errors import InflucoderError
from influcoder_lib.refresh import Facts, Node
from influcoder_lib.store import Draft, Manifest, Recipe

log = logging.getLogger("influcoder_assets")

SettingsOf = Callable[[Settings], Mapping[str, Any]]


@dataclass(frozen=True)
class Maker:
    """An asset: its node, its place in the UI, the settings that shape it, and how it is made."""

    node: Node
    group: str
    kinds: frozenset[str]
    settings: SettingsOf
    make: Callable[["Task"], None]

    @property
    def description(self) -> str:
        """The docstring of the function that makes it."""
        return self.make.__doc__ or ""


@dataclass
class Task:
    """One artifact being made: where its inputs are and where its files go."""

    workspace: Workspace
    facts: Facts
    shard: str | None
    draft: Draft
    run_id: str
    label: str
    markdown: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The user's settings."""
        return self.workspace.settings

    @property
    def shard_name(self) -> str:
        """Partition key of the shard in hand."""
        if self.shard is None:
            raise ValueError(f"{self.label} is not made shard by shard")
        return self.shard

    def input(self, asset: str, shard: str | None = None) -> Manifest:
        """Manifest of an input that is not sharded, or of one of its shards."""
        return self.workspace.store.require(asset, shard)

    def file(self, asset: str, name: str, shard: str | None = None) -> Path:
        """Path of one file of an input, its bytes verified."""
        return self.workspace.store.path(self.input(asset, shard), name)

    def folder(self, asset: str) -> Path:
        """Folder of an input that is not sharded, its bytes verified."""
        return self.workspace.store.folder(self.input(asset))

    def each(self, asset: str) -> list[str]:
        """Shards of a sharded input that are in the corpus now and were made."""
        return [
            shard for shard in sorted(self.facts.shards) if (asset, shard) in self.facts.recorded
        ]

    def out(self, name: str) -> Path:
        """Where to write a file of this artifact."""
        return self.draft.folder / name

    def say(self, message: str) -> None:
        """Tell the user how far it is."""
        log.info("%s: %s", self.label, message)


MAKERS: dict[str, Maker] = {}


def asset_maker(
    *,
    group: str,
    inputs: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    settings: SettingsOf = lambda _: {},
    sharded: bool = False,
    frozen: bool = False,
    kinds: tuple[str, ...] = (),
    code_version: str = "1",
) -> Callable[[Callable[[Task], None]], Callable[[Task], None]]:
    """Declare a function as the one that makes the asset of its name."""

    def register(make: Callable[[Task], None]) -> Callable[[Task], None]:
        node = Node(make.__name__, sharded, inputs, sources, code_version, frozen)
        MAKERS[node.name] = Maker(node, group, frozenset(kinds), settings, make)
        return make

    return register


def nodes() -> list[Node]:
    """All nodes, inputs first."""
    return refresh.in_order([maker.node for maker in MAKERS.values()])


def current_facts(workspace: Workspace) -> Facts:
    """What is true now for all assets."""
    settings = {name: dict(m.settings(workspace.settings)) for name, m in MAKERS.items()}
    return workspace.facts(nodes(), settings)


def current_plan(workspace: Workspace) -> list[refresh.Step]:
    """What is out of date now."""
    return refresh.plan(nodes(), current_facts(workspace))


def standing_failures(workspace: Workspace) -> dict[str, str]:
    """What failed and would fail again, with what was said: the plan leaves it out until something
    that it is made from changes."""
    facts = current_facts(workspace)
    by_name = {node.name: node for node in nodes()}
    stored = {key: workspace.store.failure(*key) for key in facts.failed}
    return {
        refresh.label(key): failure[1]
        for key, failure in stored.items()
        if failure
        and failure[0] == refresh.recipe(by_name[key[0]], key[1], by_name, facts).fingerprint
    }


def make(workspace: Workspace, asset: str, shard: str | None, run_id: str) -> tuple[Manifest, Task]:
    """Make one artifact and publish it, whatever the plan says.

    Raises:
        InflucoderError: it cannot be made; the failure is on record, so that the plan does not
            ask for the same again.
    """
    maker = MAKERS[asset]
    facts = current_facts(workspace)
    recipe: Recipe = refresh.recipe(maker.node, shard, {n.name: n for n in nodes()}, facts)
    label = refresh.label((asset, shard))
    store = workspace.store
    try:
        with store.publish(asset, shard, recipe, run_id) as draft:
            task = Task(workspace, facts, shard, draft, run_id, label)
            task.say("starts")
            maker.make(task)
    except InflucoderError as error:
        log.error("%s failed: %s", label, error)
        store.record_failure(asset, shard, recipe, str(error))
        raise
    finally:
        memory.release()
    manifest = store.require(asset, shard)
    facts_said = ", ".join(f"{k} {_short(v)}" for k, v in list(manifest.summary.items())[:4])
    log.info("%s: done%s", label, f" ({facts_said})" if facts_said else "")
    return manifest, task


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
