"""The encoder in use. MLflow's alias `champion` says which it is; the asset follows it, and moves
it when a challenger wins."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from influcoder_assets.encoder import stored_vectors
from influcoder_assets.maker import Task, asset_maker
from influcoder_assets.sources import NONE
from influcoder_assets.workspace import Workspace
from influcoder_lib import evaluation, models, student
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.errors import ModelError, StoreError
from influcoder_lib.evaluation import comparison
from influcoder_lib.evaluation.calibration_set import CalibrationSet
from influcoder_lib.manifests import source_input
from influcoder_lib.metrics import Fidelity
from influcoder_lib.store import Manifest, Store
from influcoder_lib.teacher.distillation_set import DistillationSet

_ALIAS = source_input("champion")
_CHALLENGER = "influence_encoder"


@dataclass(frozen=True)
class Contestant:
    """An encoder that may be in use: its registry version (None: untrained), where it is from."""

    version: str | None
    mlflow_run: str | None
    folder: Path
    window: int


@asset_maker(
    group="encoder",
    inputs=("influence_encoder", "distillation_set", "teacher_rankings"),
    sources=("base_encoder", "champion"),
    kinds=("mlflow",),
    code_version="2",
)
def champion_encoder(task: Task) -> None:
    """The encoder in use: the challenger if it beats the untrained encoder and the one in use
    before on the test split; else that one, and at first the untrained one. A challenger is judged
    once; afterwards the alias `champion` is followed, wherever somebody moves it."""
    before = task.workspace.store.current("champion_encoder")
    contestants = _contestants(task)
    load = student.encoder.InfluenceEncoder.load
    encoders = {name: load(each.folder, each.window) for name, each in contestants.items()}
    test = evaluation.held_out.Block.of(
        DistillationSet.load(task.folder("distillation_set")),
        np.load(task.file("teacher_rankings", "influence.npy")),
        "test",
    )
    fidelity = {name: test.fidelity_of(each) for name, each in encoders.items()}
    merits = {name: comparison.merit(each) for name, each in fidelity.items()}
    challenger = task.input(_CHALLENGER).fingerprint
    judged = before is not None and before.recipe.inputs.get(_CHALLENGER) == challenger
    standing = "champion" if "champion" in contestants else "untrained"
    winner = standing if judged else _best(merits, standing)
    chosen = contestants[winner]
    encoders[winner].save(task.out("encoder"))
    _keep_calibration(task, encoders[winner].fingerprint, fidelity[winner])
    if winner == "challenger":
        task.workspace.registry.promote(str(chosen.version))
    task.draft.settled[_ALIAS] = chosen.version or NONE
    task.draft.rows = 1
    task.draft.summary |= {
        "winner": "alias" if judged else winner,
        "version": chosen.version,
        **{f"merit_{name}": value for name, value in merits.items()},
        **asdict(fidelity[winner]),
        "encoder": encoders[winner].fingerprint,
        "window": encoders[winner].window,
        "mlflow_run": chosen.mlflow_run,
        "challenger": contestants["challenger"].version,
    }


def champion_vectors(task: Task) -> StoredVectors:
    """The champion, its vectors kept in a row store."""
    summary = task.input("champion_encoder").summary
    folder = partial(task.folder, "champion_encoder", "encoder")
    return stored_vectors(task, str(summary["encoder"]), folder, int(summary["window"]))


def calibration_set(task: Task) -> CalibrationSet:
    """The samples that the champion is measured by."""
    return CalibrationSet.load(task.folder("champion_encoder", "calibration"))


def version_before(store: Store) -> str | None:
    """The registry version that was in use before the one in use now; None: the untrained encoder.

    Raises:
        StoreError: no other encoder was ever in use.
    """
    used = [manifest.summary["version"] for manifest in store.history("champion_encoder")]
    others = [version for version in used if version != used[-1]]
    if not others:
        raise StoreError(
            "There is nothing to roll back to: no other encoder was ever in use.",
            where=str(store.root),
            fix="`influcoder rollback --to untrained` goes back to the untrained encoder",
        )
    return others[-1]


def versions_in_use(workspace: Workspace) -> set[str | None]:
    """Registry versions of encoders that may be used again: the one that the alias points at, the
    one in use, the one before it, and None, the untrained encoder.

    Raises:
        StoreError: the registry cannot be reached.
    """
    used = [each.summary["version"] for each in workspace.store.history("champion_encoder")]
    before = [version for version in used if version != used[-1]]
    return {None, workspace.registry.champion(), *used[-1:], *before[-1:]}


def _best(merits: Mapping[str, float], standing: str) -> str:
    """The challenger if it beats everyone else; a tie leaves things as they are."""
    others = max(value for name, value in merits.items() if name != "challenger")
    return "challenger" if merits["challenger"] > others else standing


def _contestants(task: Task) -> dict[str, Contestant]:
    """The untrained encoder, the one that the alias points at, and the latest trained one."""
    base = models.check_encoder(task.workspace.encoder_files)
    challenger = task.input(_CHALLENGER)
    found = {"untrained": Contestant(None, None, base, int(challenger.summary["window"]))}
    alias = task.facts.sources["champion"]
    if alias != NONE:
        found["champion"] = _trained(task, _trained_as(task, alias))
    found["challenger"] = _trained(task, challenger)
    return found


def _trained(task: Task, manifest: Manifest) -> Contestant:
    summary = manifest.summary
    folder = task.workspace.store.folder(manifest, "encoder")
    return Contestant(summary["version"], summary["mlflow_run"], folder, int(summary["window"]))


def _trained_as(task: Task, version: str) -> Manifest:
    """The manifest of the trained encoder with this registry version."""
    for manifest in reversed(task.workspace.store.history(_CHALLENGER)):
        if manifest.summary["version"] == version:
            return manifest
    raise ModelError(
        f"The alias champion points at version {version}, which was not trained in this home.",
        where=task.workspace.registry.shown_address,
        fix="if another home uses this name on this server, give encoder.registered_model another"
        " one; else type `influcoder rollback --to VERSION` with a version that `influcoder sql"
        ' "SELECT version, merit, in_use FROM encoders"` shows, or with `untrained`',
    )


def _keep_calibration(task: Task, encoder: str, fidelity: Fidelity) -> None:
    """The encoder's own calibration set, as it was when it came into use; a new one for an encoder
    that never was, or whose teacher is not the one of today."""
    store = task.workspace.store
    teacher = str(task.input("distillation_set").summary["teacher"])
    for manifest in reversed(store.history("champion_encoder")):
        if manifest.summary["encoder"] != encoder:
            continue
        folder = store.folder(manifest, "calibration")
        if CalibrationSet.load(folder).teacher == teacher:
            shutil.copytree(folder, task.out("calibration"))
            return
        break
    frozen = DistillationSet.load(task.folder("distillation_set"))
    influence = task.settings.distillation.influence
    CalibrationSet.of(frozen, teacher, influence, fidelity).save(task.out("calibration"))
