"""Settings of the two models, of the distillation that connects them, and of their agreement."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic.config import JsonDict

from influcoder_assets.settings_base import HomePath, Section, Seed, Text
from influcoder_assets.settings_errors import rejected
from influcoder_lib.precision import Precision

_SOURCE = (
    "fresh: a new, seeded LoRA adapter; peft: an adapter that you have trained; warmup: one that is"
    " trained on a few samples of the corpus first, once."
)
_SOURCES: JsonDict = {"allowed": "one of fresh, peft, warmup"}
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Rank = Annotated[int, Field(ge=1, le=1024, description="Rank of the adapter.")]
AdapterSeed = Annotated[Seed, Field(description="Seed of the adapter's random weights.")]


class FreshAdapter(Section):
    """A new, seeded LoRA adapter."""

    source: Literal["fresh"] = Field(
        default="fresh", description=_SOURCE, json_schema_extra=_SOURCES
    )
    rank: Rank = 16
    seed: AdapterSeed = 0


class WarmupAdapter(Section):
    """A LoRA adapter that starts as a fresh one and is trained on a draw from the corpus."""

    source: Literal["warmup"] = Field(description=_SOURCE, json_schema_extra=_SOURCES)
    rank: Rank = 16
    seed: AdapterSeed = 0
    samples: int = Field(
        default=200,
        ge=1,
        le=1_000_000,
        description="Samples of the corpus that the adapter is trained on, drawn once.",
    )
    samples_per_step: int = Field(
        default=8, ge=1, le=65_536, description="Samples in one step of that training."
    )
    epochs: int = Field(default=4, ge=1, le=1000, description="Passes over these samples.")
    learning_rate: float = Field(
        default=2e-4, gt=0, le=1, description="Highest learning rate; it falls to zero."
    )


class PeftAdapter(Section):
    """A LoRA adapter that the user has trained with PEFT."""

    source: Literal["peft"] = Field(description=_SOURCE, json_schema_extra=_SOURCES)
    path: HomePath = Field(description="Folder of a LoRA adapter saved by PEFT.")


def adapter_kind(value: Any) -> Any:
    """Which adapter a mapping describes; without a source it is a fresh one."""
    if isinstance(value, dict):
        return value.get("source", "fresh")
    return getattr(value, "source", None)


AdapterSettings = Annotated[
    Annotated[FreshAdapter, Tag("fresh")]
    | Annotated[PeftAdapter, Tag("peft")]
    | Annotated[WarmupAdapter, Tag("warmup")],
    Discriminator(adapter_kind),
]


class SketchSettings(Section):
    """The CountSketch that compresses a gradient."""

    dimensions: int = Field(
        default=8192,
        ge=64,
        le=2**20,
        description="Numbers kept of each gradient; more cost disk and memory, and err less.",
    )
    seed: Seed = Field(default=0, description="Seed of the sketch's hashes.")


class TargetModelSettings(Section):
    """The decoder whose behavior is attributed, and how its gradients are taken."""

    path: Text = Field(
        default="smollm2-135m-instruct",
        description="Causal language model.",
        json_schema_extra={
            "allowed": "a packaged model's name, a folder, a hub name, or name@revision"
        },
    )
    dtype: Precision = Field(
        default="auto",
        description="Number format of matrix products; auto is bfloat16 where the machine has it"
        " and float32 elsewhere.",
    )
    window: int = Field(
        default=512,
        ge=16,
        le=131_072,
        description="Longest sample in tokens; the response keeps at most half, the prompt is cut"
        " at its head.",
    )
    tokens_per_batch: Annotated[int, Field(ge=16)] | None = Field(
        default=None,
        description="Tokens in one batch, padding included, and so the memory that it takes; a"
        " batch that does not fit is halved. null: 1024 on a CPU, 32768 on a GPU, but a window at"
        " least.",
        json_schema_extra={"allowed": "a whole number, at least window, or null"},
    )
    adapter: AdapterSettings = Field(
        default_factory=FreshAdapter,
        description="LoRA adapter that the gradients are taken of.",
    )
    sketch: SketchSettings = Field(
        default_factory=SketchSettings, description="How a gradient is compressed."
    )

    @field_validator("tokens_per_batch")
    @classmethod
    def _holds_one_window(cls, value: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("window")
        if value is not None and window is not None and value < window:
            raise rejected(
                f"one sample may have {window} tokens, and a batch must hold it",
                allowed=f"a whole number, at least window ({window}), or null",
                fix="raise tokens_per_batch, leave it out, or lower window",
            )
        return value


class DistillationSettings(Section):
    """The frozen set of queries and candidates that the encoder learns from."""

    candidates_per_shard: int = Field(
        default=48,
        ge=1,
        le=1_000_000,
        description="Candidates drawn from each shard; each costs one gradient.",
    )
    candidates: int = Field(
        default=3000,
        ge=8,
        le=20_000,
        description="Most candidates of all shards that the encoder learns from and is judged on;"
        " if more are drawn, an equal share of each shard's.",
    )
    seed: Seed = Field(default=0, description="Seed of the draw and of the splits.")
    influence: Literal["centred", "raw"] = Field(
        default="centred",
        description="centred: cosine after the candidates' mean is taken out; raw: plain cosine.",
    )
    validation: float = Field(
        default=0.2,
        gt=0,
        lt=0.8,
        description="Share held back to choose the best epoch; with test it is less than 0.8.",
    )
    test: float = Field(
        default=0.2,
        gt=0,
        lt=0.8,
        validate_default=True,
        description="Share held back for the reported fidelity; with validation it is less than"
        " 0.8.",
    )

    @field_validator("test")
    @classmethod
    def _leaves_rows_to_train_on(cls, value: float, info: ValidationInfo) -> float:
        validation = info.data.get("validation")
        if validation is not None and validation + value >= 0.8 - 1e-9:
            raise rejected(
                f"validation ({validation:g}) and test ({value:g}) together hold back"
                f" {validation + value:g} of the set, too little is left to train on",
                allowed="validation + test less than 0.8",
            )
        return value


class EncoderSettings(Section):
    """The sentence encoder that is distilled, and how it is trained."""

    path: Text = Field(
        default="all-minilm-l6-v2",
        description="Sentence encoder that training starts from.",
        json_schema_extra={
            "allowed": "a packaged encoder's name, a folder, a hub name, or name@revision"
        },
    )
    registered_model: ModelName = Field(
        default="influence-encoder",
        description="What MLflow's registered model and experiment are called; homes that share a"
        " server, but no storage.location, each have a name of their own.",
        json_schema_extra={"allowed": "letters, digits, - and _"},
    )
    architecture: Literal["kernel", "static", "transformer"] = Field(
        default="kernel",
        description="kernel: the encoder's transformer as it is, under a kernel regression of the"
        " teacher's features that knows prompt from response, their lengths and how they are set;"
        " static: the same regression on a table of the encoder's vectors of single tokens, which"
        " reads 50 to 100 times as many texts a second and cannot know the order of words;"
        " transformer: the encoder itself is trained, as published.",
    )
    dimension: int = Field(
        default=96,
        ge=8,
        le=4096,
        multiple_of=8,
        description="Numbers of a kernel or static student's vector, a third of them for plain"
        " resemblance; a transformer has the encoder's own.",
        json_schema_extra={"allowed": "a multiple of 8, at least 8, at most 4096"},
    )
    window: int = Field(
        default=256, ge=8, le=131_072, description="Longest sample in tokens; the rest is cut."
    )
    recipe: Literal["reference", "lean"] = Field(
        default="lean",
        description="How a transformer is trained, with the keys below; reference is the published"
        " recipe, lean the same without dropout and in bfloat16 where the machine has it.",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2),
        strict=False,
        min_length=1,
        description="One encoder is trained for each seed; the report gives mean and spread."
        " Kernel and static students have nothing random: they take the first alone.",
        json_schema_extra={"allowed": "a list of different whole numbers, at least one"},
    )
    epochs: int = Field(default=8, ge=1, le=1000, description="Passes over the train split.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Highest learning rate, reached after warm-up; null: the recipe's, 5.0e-5.",
        json_schema_extra={"allowed": "a number, more than 0, at most 1, or null"},
    )
    queries_per_step: int = Field(default=8, ge=1, le=4096, description="Queries in one step.")
    candidates_per_step: int = Field(
        default=16, ge=2, le=65_536, description="Candidates in one step."
    )
    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the correlation loss; the ranking loss has the rest.",
    )
    temperature: float = Field(
        default=0.05, gt=0, le=10, description="Temperature of the ranking loss."
    )
    hard_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a step's candidates taken from the most influential ones.",
    )

    @field_validator("seeds")
    @classmethod
    def _differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise rejected("a seed is given twice")
        return value


class FidelitySettings(Section):
    """When a shard on which the encoder follows the gradients badly is pointed out."""

    warn_below: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="A shard is weak if its fidelity is surely below this share of the encoder's"
        " own on the test split: a warning.",
    )
    fail_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        validate_default=True,
        description="A shard fails its check if its fidelity is surely below this share.",
        json_schema_extra={"allowed": "a number, at least 0, at most warn_below"},
    )

    @field_validator("fail_below")
    @classmethod
    def _is_not_above_the_warning(cls, value: float, info: ValidationInfo) -> float:
        warn_below = info.data.get("warn_below")
        if warn_below is not None and value > warn_below:
            raise rejected(
                f"a shard would fail before it is weak (warn_below is {warn_below:g})",
                allowed=f"a number, at least 0, at most warn_below ({warn_below:g})",
            )
        return value
