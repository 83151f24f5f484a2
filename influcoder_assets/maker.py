"""What an asset is here: a node of the graph, and the function that makes one artifact of it.

The functions are written once, in the modules that `_DECLARED_IN` names, and decorated with
`asset_maker`. The assets that Dagster shows and the steps of the refresh job both run them through
`make`, so a click in the UI and the schedule do exactly the same.
"""

import functools
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influcoder_assets.config import Settings
from influcoder_assets.sources import DEPENDENT, look_at
from influcoder_assets.workspace import Workspace
from influcoder_lib import manifests, memory, refresh
from influcoder_lib.errors import DataError, InflucoderError, StoreError
from influcoder_lib.refresh import Facts, Node
from influcoder_lib.store import Draft, Manifest, Recipe

log = logging.getLogger("influcoder_assets")

_DECLARED_IN = ("corpus", "teacher", "encoder", "champion", "curation", "reporting")

SettingsOf = Callable[[Settings], Mapping[str, Any]]


class MovedError(DataError):
    """What an artifact is made from changed meanwhile. That is no failure, so it is on no record:
    what is there may be the same again by the next look."""


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
        """Manifest of an input that is not sharded, or of one of its shards.

        Raises:
            StoreError: it was never made.
            MovedError: it is not the one that this artifact's recipe names.
        """
        manifest = self.workspace.store.require(asset, shard)
        recorded = self.facts.recorded.get((asset, shard))
        if recorded is None or recorded[1] != manifest.fingerprint:
            raise _moved(manifests.label((asset, shard)), self.label)
        return manifest

    def file(self, asset: str, name: str, shard: str | None = None) -> Path:
        """Path of one file of an input, its bytes verified."""
        return self.workspace.store.path(self.input(asset, shard), name)

    def folder(self, asset: str, below: str = "") -> Path:
        """Folder of an input that is not sharded, or one below it, its bytes verified."""
        return self.workspace.store.folder(self.input(asset), below)

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


_DECLARED: dict[str, Maker] = {}


@functools.cache
def makers() -> dict[str, Maker]:
    """All assets, by name. The modules that declare them import this one, so they are imported when
    it is first asked for; the order is theirs, whichever of them was imported before."""
    modules = [f"influcoder_assets.{module}" for module in _DECLARED_IN]
    for module in modules:
        importlib.import_module(module)
    declared = _DECLARED.items()
    return dict(sorted(declared, key=lambda each: modules.index(each[1].make.__module__)))


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
        _DECLARED[node.name] = Maker(node, group, frozenset(kinds), settings, make)
        return make

    return register


def nodes() -> list[Node]:
    """All nodes, inputs first."""
    return refresh.in_order([maker.node for maker in makers().values()])


def current_facts(workspace: Workspace) -> Facts:
    """What is true now for all assets."""
    settings = {name: dict(m.settings(workspace.settings)) for name, m in makers().items()}
    return workspace.facts(nodes(), settings)


def current_plan(workspace: Workspace) -> list[refresh.Step]:
    """What is out of date now."""
    return refresh.plan(nodes(), current_facts(workspace))


def standing_failures(workspace: Workspace, facts: Facts) -> dict[str, str]:
    """What failed and would fail again, with what was said: the plan leaves it out until something
    that it is made from changes. What cannot be a shard is among it."""
    by_name = {node.name: node for node in nodes()}
    return workspace.refused | {
        manifests.label(key): message
        for key, (failed, message) in workspace.store.failures().items()
        if key[0] in by_name
        and (key[1] is None or key[1] in facts.shards)
        and failed == refresh.recipe(by_name[key[0]], key[1], by_name, facts).fingerprint
    }


def make(
    workspace: Workspace, facts: Facts, asset: str, shard: str | None, run_id: str
) -> tuple[Manifest, Task]:
    """Make one artifact from what `facts` say and publish it, whatever the plan says. The task that
    is returned has the facts as they are afterwards.

    Raises:
        InflucoderError: it cannot be made, or what it is made from changed meanwhile.
        Exception: a programming mistake, or a failure of the machine. It is on record, so that the
            plan does not ask for the same again; but not a StoreError: what is stored, the disk and
            the registry are mended without any change to what the artifact is made from; and not a
            MovedError.
    """
    maker = makers()[asset]
    recipe = recipe_of(asset, shard, facts)
    label = manifests.label((asset, shard))
    store = workspace.store
    try:
        with store.publish(asset, shard, recipe, run_id) as draft:
            task = Task(workspace, facts, shard, draft, run_id, label)
            task.say("starts")
            _make_of_unmoved(task, maker)
    except Exception as error:
        known = isinstance(error, InflucoderError)
        log.error("%s failed: %s", label, told(error), exc_info=not known)
        if not isinstance(error, StoreError | MovedError):
            store.record_failure(asset, shard, recipe, told(error))
        raise
    finally:
        memory.release()
    manifest, task = taken(
        workspace, facts, store.require(asset, shard), task.draft, task.markdown, run_id
    )
    facts_said = ", ".join(f"{k} {_short(v)}" for k, v in list(manifest.summary.items())[:4])
    log.info("%s: done%s", label, f" ({facts_said})" if facts_said else "")
    return manifest, task


def taken(
    workspace: Workspace,
    facts: Facts,
    manifest: Manifest,
    draft: Draft,
    markdown: dict[str, str],
    run_id: str,
) -> tuple[Manifest, Task]:
    """What `make` returns of an artifact that is made and published, here or in another process."""
    label = manifests.label((manifest.asset, manifest.shard))
    task = Task(workspace, facts, manifest.shard, draft, run_id, label, markdown)
    task.facts = _afterwards(task, manifest)
    return manifest, task


def taken_up(workspace: Workspace, facts: Facts, manifest: Manifest) -> tuple[Manifest, Task]:
    """The same of one that was made and published by a run that ended there."""
    draft = Draft(workspace.store.place(manifest))
    return taken(workspace, facts, manifest, draft, {}, manifest.run_id)


def recipe_of(asset: str, shard: str | None, facts: Facts) -> Recipe:
    """The current recipe of one artifact."""
    return refresh.recipe(makers()[asset].node, shard, {n.name: n for n in nodes()}, facts)


def _afterwards(task: Task, manifest: Manifest) -> Facts:
    """The facts, with what has just been made and what that moved."""
    key = (manifest.asset, manifest.shard)
    facts = task.facts.after_making(key, manifest.recipe, manifest.fingerprint)
    for name, content in task.draft.settled.items():
        if source := manifests.source_of(name):
            facts = facts.after_looking(source, manifest.shard, content)
    for name in DEPENDENT.get(manifest.asset, ()):
        content = look_at(task.workspace, name, manifest.shard)
        facts = facts.after_looking(name, manifest.shard, content)
    return facts


def moved_sources(workspace: Workspace, facts: Facts, asset: str, shard: str | None) -> list[str]:
    """The sources of an artifact that are no longer what the facts say."""
    return [
        name
        for name in makers()[asset].node.sources
        if look_at(workspace, name, shard) != facts.source(name, shard)
    ]


def _make_of_unmoved(task: Task, maker: Maker) -> None:
    """Make it; what goes wrong with a source that moved meanwhile says nothing of the source."""
    try:
        maker.make(task)
    except Exception:
        _check_unmoved(task, maker.node)
        raise
    _check_unmoved(task, maker.node)


def _check_unmoved(task: Task, node: Node) -> None:
    """An artifact that carries the fingerprint of one file and the content of the next would be
    taken for up to date for ever."""
    for name in moved_sources(task.workspace, task.facts, node.name, task.shard):
        if manifests.source_input(name) not in task.draft.settled:
            raise _moved(name, task.label)


def _moved(what: str, label: str) -> MovedError:
    return MovedError(
        f"{what} changed while {label} was made from it.",
        where=label,
        fix="nothing: it is made again from what is there now",
    )


def told(error: Exception) -> str:
    """What a person is told of an error; of one that is not user-facing, its kind as well."""
    return str(error) if isinstance(error, InflucoderError) else f"{type(error).__name__}: {error}"


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
