"""One look at a home, kept true by what is made through it, so that a run looks but once.

A run that asks the disk before each of its steps what is true would spend most of its time on
shards in which nothing has changed. What somebody else changes meanwhile is not in a survey: a
step that it concerns refuses to be made, and is left to the next run with all that depends on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from influcoder_assets import engine, maker
from influcoder_assets.engine import Making
from influcoder_assets.maker import Task, makers, nodes
from influcoder_assets.workspace import Workspace
from influcoder_lib import refresh
from influcoder_lib.errors import DataError
from influcoder_lib.manifests import Key
from influcoder_lib.refresh import Facts, Step
from influcoder_lib.store import Manifest


@dataclass
class Survey:
    """What is true of a home, and what is to be made; `unmade` is all that ever was and is not
    made, so that what has failed goes on to block what takes it as it is."""

    workspace: Workspace
    facts: Facts
    steps: list[Step]
    unmade: set[Key] = field(init=False)

    def __post_init__(self) -> None:
        self.unmade = _keys(self.steps)

    @classmethod
    def of(cls, workspace: Workspace) -> "Survey":
        """Look at a home now."""
        facts = maker.current_facts(workspace)
        return cls(workspace, facts, refresh.plan(nodes(), facts))

    @property
    def failures(self) -> dict[str, str]:
        """What failed and would fail again, with what was said."""
        return maker.standing_failures(self.workspace, self.facts)

    @property
    def waiting(self) -> list[Key]:
        """What is not up to date, and cannot be made before something that failed is mended."""
        return refresh.waiting(nodes(), self.facts) if self.failures else []

    def due(self, asset: str) -> list[Step]:
        """What can be made of an asset now, after what was made of those before it."""
        if not any(step.asset == asset for step in self.steps):
            return []
        order = nodes()
        upto = order[: order.index(makers()[asset].node) + 1]
        looked_at = {node.name for node in upto}
        later = [step for step in self.steps if step.asset not in looked_at]
        self.steps = refresh.plan(upto, self.facts, self.unmade) + later
        return [step for step in self.steps if step.asset == asset and step.ready]

    def thawed(self, asset: str) -> list[Step]:
        """What would be made of a frozen asset if it were none, or what is due of it as it is."""
        step = refresh.thaw(makers()[asset].node, nodes(), self.facts)
        return [step] if step else self.due(asset)

    def start(self, asset: str, shards: Sequence[str | None], run_id: str) -> Making:
        """Begin with what of some artifacts can be made from what is true now, see `engine.start`.

        Raises:
            SettingsError: the engine of the settings cannot be had.
        """
        unmoved = [
            shard
            for shard in shards
            if not maker.moved_sources(self.workspace, self.facts, asset, shard)
        ]
        return engine.start(self.workspace, self.facts, asset, unmoved, run_id)

    def make(
        self, asset: str, shard: str | None, run_id: str, making: Making = maker.make
    ) -> tuple[Manifest, Task]:
        """Make an artifact and see what follows from it.

        Raises:
            DataError: there is no file of the shard.
            Exception: see `maker.make`.
        """
        if shard is not None and shard not in self.facts.shards:
            raise DataError(
                f"No file of the corpus makes the shard {shard}.",
                where=str(self.workspace.settings.corpus.path),
                fix="nothing if it was taken away on purpose; else put the file back",
            )
        is_planned = any((step.asset, step.shard) == (asset, shard) for step in self.steps)
        try:
            manifest, task = making(self.workspace, self.facts, asset, shard, run_id)
        except Exception:
            tried = maker.recipe_of(asset, shard, self.facts)
            self.facts = self.facts.after_failing((asset, shard), tried)
            raise
        self.facts = task.facts
        self.unmade.discard((asset, shard))
        if not is_planned:
            self.steps = refresh.plan(nodes(), self.facts)
            self.unmade |= _keys(self.steps)
        return manifest, task

    def moved(self, step: Step) -> list[str]:
        """What a step is made from that has changed since this survey."""
        return maker.moved_sources(self.workspace, self.facts, step.asset, step.shard)


def _keys(steps: Sequence[Step]) -> set[Key]:
    return {(step.asset, step.shard) for step in steps}
