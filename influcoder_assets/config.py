"""The user's settings: influcoder.yaml as frozen, validated pydantic models.

What belongs here is what a setting is called, what it means, its default and what it may be; the
settings of the models themselves are in `settings_models`. Turning a rejected value into sentences
is the business of `settings_errors`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from influcoder_assets.settings_base import HomePath, Section, Text
from influcoder_assets.settings_errors import problems_of, rejected, settings_error
from influcoder_assets.settings_models import (
    DistillationSettings,
    EncoderSettings,
    FidelitySettings,
    TargetModelSettings,
)
from influcoder_assets.settings_yaml import Document, read_yaml
from influcoder_lib.curation.rules import Kind, Method, Statistic, known_good_needed
from influcoder_lib.curation.score_table import STATISTICS

SETTINGS_FILE = "influcoder.yaml"

BehaviorName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class ColumnSettings(Section):
    """Which column (or JSON key) of a row holds what."""

    prompt: Text = Field(default="prompt", description="Column with the prompt.")
    response: Text = Field(
        default="response", validate_default=True, description="Column with the response."
    )
    label: Text | None = Field(
        default=None, description="Column with a human label, used only to measure and report."
    )
    source: Text | None = Field(
        default=None, description="Column that says where a row came from, used only to report."
    )
    messages: Text | None = Field(
        default=None,
        description="Column with chat messages (a list of {role, content}), instead of prompt and"
        " response: the last one, the assistant's, is the response.",
    )

    @field_validator("response")
    @classmethod
    def _differs_from_prompt(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("prompt"):
            raise rejected("prompt and response cannot be the same column")
        return value

    @field_validator("messages")
    @classmethod
    def _replaces_prompt_and_response(cls, value: str | None, info: ValidationInfo) -> str | None:
        named = [name for name in ("prompt", "response") if info.data.get(name, name) != name]
        if value is not None and named:
            raise rejected(
                "messages take the place of prompt and response",
                fix=f"remove messages, or leave {' and '.join(named)} out",
            )
        return value


class CorpusSettings(Section):
    """Where the training samples are and how their rows are read."""

    path: HomePath = Field(
        description="Folder with the corpus; every .jsonl, .jsonl.gz, .csv or .parquet file below"
        " it is a shard."
    )
    columns: ColumnSettings = Field(
        default_factory=ColumnSettings, description="Which column of a row holds what."
    )
    max_characters: int = Field(
        default=200_000,
        ge=1,
        description="Longest prompt, or response, in characters; a row with a longer one goes to"
        " quarantine.",
    )
    licences: dict[Text, Text] = Field(
        default_factory=dict,
        description="Licence of each source, for the card of an exported dataset.",
        json_schema_extra={
            "allowed": "texts by the names of sources; the hub's identifiers, such as apache-2.0,"
            " are best"
        },
    )


class RuleSettings(Section):
    """When a sample that resembles a behavior is dropped, or kept."""

    kind: Kind = Field(
        default="unwanted",
        description="unwanted: samples with high scores are dropped; wanted: only samples with"
        " high scores are kept.",
    )
    method: Method = Field(
        default="fraction",
        description="threshold: cut at this score; fraction: drop (wanted: keep) this share of"
        " the calibration set; false_drop_rate: drop at most this share of known-good samples,"
        " in expectation.",
    )
    value: float = Field(
        default=0.05,
        description="The number that goes with the method.",
        json_schema_extra={
            "allowed": "threshold: a score from -1 to 1, without a default; fraction and"
            " false_drop_rate: a share, more than 0 and less than 1"
        },
    )
    statistic: Statistic = Field(
        default="max",
        description="Over a behavior's queries: max takes the most similar one, mean all of them.",
    )

    @field_validator("value")
    @classmethod
    def _fits_the_method(cls, value: float, info: ValidationInfo) -> float:
        method = info.data.get("method")
        if method == "threshold" and not -1 <= value <= 1:
            raise rejected("no score can reach this threshold", allowed="a score from -1 to 1")
        if method in ("fraction", "false_drop_rate") and not 0 < value < 1:
            raise rejected(
                f"with the method {method} this is a share",
                allowed="a number more than 0 and less than 1",
            )
        return value

    @model_validator(mode="after")
    def _threshold_is_given(self) -> "RuleSettings":
        if self.method == "threshold" and "value" not in self.model_fields_set:
            raise rejected(
                "the method threshold needs a value", allowed="a score from -1 to 1", key="value"
            )
        return self


class BehaviorSettings(Section):
    """One behavior: the queries that show it and the rule that acts on it."""

    queries: HomePath = Field(
        description="File with samples that show the behavior: 30 or more of all behaviors"
        " together, with different prompts; fewer than 8 are refused."
    )
    rule: RuleSettings = Field(
        default_factory=RuleSettings, description="When a sample is dropped, or kept."
    )
    resemblance: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share that plain resemblance to the queries has in a score; influence has the"
        " rest. A transformer does not tell them apart.",
    )
    known_good: HomePath | None = Field(
        default=None,
        validate_default=True,
        description="File with samples that must not be dropped; the method false_drop_rate is"
        " calibrated on them.",
    )
    positive_label: Text | None = Field(
        default=None,
        description="Label of the samples that show the behavior, for the report's measurements.",
    )
    hard_negative_label: Text | None = Field(
        default=None,
        description="Label of the samples that only look like it, measured on their own.",
    )

    @field_validator("known_good")
    @classmethod
    def _backs_the_false_drop_rate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        rule = info.data.get("rule")
        if value is None and rule is not None and rule.method == "false_drop_rate":
            raise rejected(
                "the method false_drop_rate needs known-good samples to be calibrated on",
                allowed="a file with samples that must not be dropped",
                fix=f"name a file of at least {known_good_needed(rule.value)} known-good rows,"
                " or use the method fraction",
            )
        return value

    @field_validator("hard_negative_label")
    @classmethod
    def _goes_with_positive(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or "positive_label" not in info.data:
            return value
        if info.data["positive_label"] is None:
            raise rejected("a hard negative is measured against positive_label, which is not given")
        if info.data["positive_label"] == value:
            raise rejected("this is positive_label too", allowed="another label, or null")
        return value


class StorageSettings(Section):
    """Where artifacts are kept. What is given here may be a password, and is in no error."""

    model_config = ConfigDict(hide_input_in_errors=True)

    location: Text | None = Field(
        default=None,
        description="Location that machines share artifacts through; the home's data folder is then"
        " the local copy of it. null: the data folder is all there is.",
        json_schema_extra={
            "allowed": "a URL that fsspec knows, such as s3://bucket/prefix, or null"
        },
    )
    options: dict[Text, Any] = Field(
        default_factory=dict,
        repr=False,
        description="What fsspec is told of the location, such as client_kwargs; leave passwords to"
        " the environment or to the machine's own configuration.",
        json_schema_extra={"allowed": "options of the location's file system, by name"},
    )

    @field_validator("location")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, found, rest = value.partition("://")
        if not found or not scheme or not rest.strip("/"):
            raise rejected("this is no URL of a location")
        if ":" in rest.partition("@")[0] and "@" in rest:
            raise rejected(
                "a URL is shown in errors, and this one holds a password",
                fix="take it out, and give it by the environment or in storage.options",
            )
        return value


class ReportSettings(Section):
    """What the report warns of."""

    most_dropped: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Largest share of the corpus that may be dropped without a warning.",
    )


class EngineSettings(Section):
    """Where the shards of an asset are made."""

    kind: Literal["local", "ray"] = Field(
        default="local",
        description="local: one shard after another, in the run's own process; ray: each shard is a"
        " task of a Ray cluster.",
    )
    address: Text | None = Field(
        default=None,
        description="Address of the Ray cluster, whose machines have the home at the same path;"
        " null: one is started on this machine.",
    )
    workers: int = Field(
        default=2, ge=1, le=1024, description="Shards at a time on a cluster that is started here."
    )


class Settings(Section):
    """All settings of one home."""

    corpus: CorpusSettings = Field(description="The training samples.")
    behaviors: dict[BehaviorName, BehaviorSettings] = Field(
        min_length=1,
        description="Behaviors by name, each with its queries and its rule.",
        json_schema_extra={
            "allowed": "at least one behavior; a name is lower-case letters, digits and _, and"
            " starts with a letter"
        },
    )
    overrides: HomePath | None = Field(
        default=None,
        description="The reviewer's csv file (sample_id, decision, note); it beats every rule.",
    )
    target_model: TargetModelSettings = Field(
        default_factory=TargetModelSettings,
        description="The decoder whose behavior is attributed.",
    )
    distillation: DistillationSettings = Field(
        default_factory=DistillationSettings, description="What the encoder learns from."
    )
    encoder: EncoderSettings = Field(
        default_factory=EncoderSettings, description="The encoder and its training."
    )
    fidelity: FidelitySettings = Field(
        default_factory=FidelitySettings,
        description="When a shard on which the encoder follows the gradients badly is pointed out.",
    )
    report: ReportSettings = Field(
        default_factory=ReportSettings, description="What the report warns of."
    )
    engine: EngineSettings = Field(
        default_factory=EngineSettings, description="Where the shards of an asset are made."
    )
    storage: StorageSettings = Field(
        default_factory=StorageSettings, description="Where artifacts are kept."
    )

    @field_validator("behaviors")
    @classmethod
    def _labels_have_a_column(
        cls, value: dict[str, BehaviorSettings], info: ValidationInfo
    ) -> dict[str, BehaviorSettings]:
        corpus = info.data.get("corpus")
        labelled = [name for name, behavior in value.items() if behavior.positive_label is not None]
        if corpus is not None and corpus.columns.label is None and labelled:
            raise rejected(
                "positive_label is given, but corpus.columns.label names no column to find it in",
                allowed="the name of the label column in corpus.columns.label",
                key=f"{labelled[0]}.positive_label",
                value=value[labelled[0]].positive_label,
            )
        return value

    @field_validator("behaviors")
    @classmethod
    def _names_are_told_apart(
        cls, value: dict[str, BehaviorSettings]
    ) -> dict[str, BehaviorSettings]:
        for name in value:
            for statistic in STATISTICS:
                if name.removesuffix(f"_{statistic}") in value.keys() - {name}:
                    raise rejected(
                        f"a table's column of that name would be the {statistic} of another one",
                        allowed=f"a name that is no other behavior's with _{statistic} behind it",
                        key=name,
                        value=name,
                    )
        return value

    @property
    def home(self) -> Path:
        """The folder that relative paths start from, absolute."""
        if self._home is None:
            raise AttributeError("these settings were made without a home")
        return self._home


def load_settings(home: Path) -> Settings:
    """Read, check and resolve `home`/influcoder.yaml.

    Args:
        home: folder of the file; relative paths in it start here.

    Returns:
        The settings, with every path absolute. Models' names stay as they are given.

    Raises:
        SettingsError: the file is missing, is no YAML, or has problems; all of them are listed.
    """
    return parse_settings(read_yaml(home / SETTINGS_FILE), home)


def parse_settings(document: Document, home: Path) -> Settings:
    """Check and resolve settings that are already read.

    Raises:
        SettingsError: lists every problem of the document.
    """
    problems = list(document.problems)
    settings = None
    try:
        settings = Settings.model_validate(document.data, context={"home": home.resolve()})
    except ValidationError as error:
        problems += problems_of(error, Settings, document.lines)
    if settings is None or problems:
        raise settings_error(document.file, problems)
    return settings
