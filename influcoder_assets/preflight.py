"""Mistakes in what the settings name, found before an hour is spent on gradients: the small files
and the models are looked at as the assets themselves do, and all mistakes are told at once."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import polars as pl

from influcoder_assets.config import BehaviorSettings
from influcoder_assets.corpus import read_reference
from influcoder_assets.curation import rule_settings
from influcoder_assets.workspace import Workspace, named_by
from influcoder_lib import models
from influcoder_lib.curation.decisions import read_overrides
from influcoder_lib.curation.rules import RuleSettings, check_known_good
from influcoder_lib.errors import InflucoderError, SettingsError
from influcoder_lib.teacher.distillation_set import check_queries


def check(workspace: Workspace) -> None:
    """Look at all that the settings name.

    Raises:
        InflucoderError: something is missing, cannot be read or is refused; of several mistakes,
            each has its own words in it.
    """
    found: list[InflucoderError] = []
    for look in _looks(workspace):
        try:
            look()
        except InflucoderError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "\n\n".join(map(str, found))
        raise SettingsError(
            f"There are {len(found)} mistakes in what the settings name.\n\n{listed}"
        )


def _looks(workspace: Workspace) -> Iterator[Callable[[], object]]:
    settings = workspace.settings
    yield lambda: workspace.shards
    queries: list[pl.DataFrame] = []
    for name, behavior in settings.behaviors.items():
        yield partial(_queries, workspace, name, behavior, queries)
    # By now, all that was yielded above has been looked at.
    if len(queries) == len(settings.behaviors):
        yield partial(_enough, workspace, queries)
    for rule in rule_settings(settings):
        yield partial(_known_good, workspace, rule, settings.behaviors[rule.behavior])
    if settings.overrides is not None:
        yield partial(read_overrides, settings.overrides)
    yield lambda: workspace.target_files
    yield partial(_encoder, workspace)


def _queries(
    workspace: Workspace, name: str, behavior: BehaviorSettings, read: list[pl.DataFrame]
) -> None:
    corpus = workspace.settings.corpus
    read.append(read_reference(corpus, behavior.queries, f"behaviors.{name}.queries"))


def _enough(workspace: Workspace, queries: Sequence[pl.DataFrame]) -> None:
    """A distillation set that is frozen needs no queries any more."""
    if workspace.store.current("distillation_set") is None:
        settings = workspace.settings.distillation
        together = pl.concat(queries).unique("sample_id", keep="first", maintain_order=True)
        check_queries(together, settings.seed, settings.validation, settings.test)


def _encoder(workspace: Workspace) -> None:
    files = workspace.encoder_files
    with named_by("encoder.path"):
        models.check_encoder(files)


def _known_good(workspace: Workspace, rule: RuleSettings, behavior: BehaviorSettings) -> None:
    if behavior.known_good is None:
        return
    corpus, setting = workspace.settings.corpus, f"behaviors.{rule.behavior}.known_good"
    good = read_reference(corpus, behavior.known_good, setting)
    if rule.method == "false_drop_rate":
        check_known_good(rule, len(good))
