"""What the steps of a plan will cost, before they run: seconds from this machine's own speed."""

import gzip
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from influcoder_lib import hardware
from influcoder_lib.models import ModelFiles
from influcoder_lib.precision import Precision
from influcoder_lib.refresh import Step
from influcoder_lib.weights import tensor_sizes

_CHARACTERS_PER_TOKEN = 4
_GGUF_BITS = 5
_GIB = 2**30
_BASE_GIB = 1.2
# Bytes that one token keeps alive until its backward, a parameter of the model.
_ACTIVATIONS = 8e-3
# What an encoder computes in (`InfluenceEncoder`).
_ENCODERS: Precision = "auto"
# Seconds that a static student takes for a text, most of them the tokenizer's.
_STATIC = 3e-4
# Matrices of float64, a row and a column a candidate, that a fit in closed form holds at its peak.
_MATRICES = 8
# Share of the machine's matmul rate that gradients, training and embedding reach.
_EFFICIENCY = 0.4


@dataclass(frozen=True)
class Workload:
    """Sizes of a refresh: mean characters and rows a shard, models, and the training's steps.

    `epochs` is 0 for a student that is fitted in closed form, `trained_on` for an adapter that is
    not trained here; else it counts its samples in all epochs. `static` says that the student has
    no transformer.
    """

    rows_per_shard: float
    characters: float
    target: ModelFiles
    encoder: ModelFiles
    dtype: Precision
    window: int
    encoder_window: int
    candidates_per_shard: int
    candidates: int
    queries: int
    shards: int
    tokens_per_batch: int
    trained_on: int
    static: bool
    epochs: int
    samples_per_step: int
    candidates_per_step: int
    seeds: int


@dataclass(frozen=True)
class Estimate:
    """One asset of the plan: artifacts to make, expected seconds, expected peak memory in GiB."""

    asset: str
    artifacts: int
    seconds: float
    gib: float


def estimate(steps: Sequence[Step], load: Workload) -> list[Estimate]:
    """Expected cost of every asset in the plan, in the plan's order; good to a factor of two.

    At most: of a shard in which a few rows have changed, only these meet a model.
    """
    rates = {precision: hardware.matmul_rate(precision) for precision in (load.dtype, _ENCODERS)}
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.asset] = counts.get(step.asset, 0) + 1
    return [
        Estimate(asset, count, _seconds(asset, count, load, rates), _gib(asset, load))
        for asset, count in counts.items()
    ]


def rows_and_characters(shards: Sequence[Path]) -> tuple[float, float]:
    """About how many rows the shards have, and characters a row, from each file's first MiB.

    A file that cannot be read counts nothing here: reading it as a shard says what is wrong.
    """
    rows = characters = 0.0
    for path in shards:
        with suppress(OSError, EOFError, zlib.error, pa.ArrowException):
            own_rows, own_characters = _rows_and_characters(path)
            rows += own_rows
            characters += own_characters
    return rows, characters / max(1.0, rows)


def _rows_and_characters(path: Path) -> tuple[float, float]:
    size = path.stat().st_size
    kind = path.suffix.lower()
    if kind == ".parquet":
        return pq.read_metadata(path).num_rows, size
    with gzip.open(path) if kind == ".gz" else path.open("rb") as stream:
        head = stream.read(1 << 20)
    size = size * 3 if kind == ".gz" else size
    return max(1, head.count(b"\n")) * max(1.0, size / max(1, len(head))), size


def parameters(files: ModelFiles) -> float:
    """Parameters of a model, from the headers of its weights (a GGUF: about 5 bits each).

    Raises:
        ModelError: the weights cannot be read.
    """
    if files.gguf is not None:
        return files.gguf.stat().st_size * 8 / _GGUF_BITS
    return sum(sum(tensor_sizes(path)) for path in files.folder.rglob("*.safetensors"))


def _seconds(asset: str, count: int, load: Workload, rates: dict[Precision, float]) -> float:
    tokens = min(load.characters / _CHARACTERS_PER_TOKEN + 10, load.window)
    encoder_tokens = min(tokens, load.encoder_window)
    gradient = 4 * parameters(load.target) * tokens
    gradient /= rates[load.dtype] * _EFFICIENCY
    # About half of a small encoder's parameters are its token table, which costs nothing.
    pass_cost = 2 * 0.5 * parameters(load.encoder) * encoder_tokens / rates[_ENCODERS]
    embedding = pass_cost / _EFFICIENCY
    student = _STATIC if load.static else embedding
    candidates = _candidates(load)
    corpus = load.rows_per_shard * load.shards
    steps = load.epochs * load.seeds * 0.6 * candidates / load.candidates_per_step
    descent = steps * load.samples_per_step * 3 * pass_cost / _EFFICIENCY
    return {
        "target_adapter": load.trained_on * gradient,
        "gradient_projections": count * load.candidates_per_shard * gradient,
        "distillation_set": load.queries * gradient,
        "influence_encoder": descent + (candidates + load.queries) * embedding,
        "champion_encoder": 3 * 0.2 * candidates * embedding,
        "encoder_comparison": min(corpus, 1000) * (embedding + load.seeds * student),
        "corpus_embeddings": count * load.rows_per_shard * student,
    }.get(asset, 0.2 * count)


def _candidates(load: Workload) -> int:
    return min(load.candidates, load.candidates_per_shard * load.shards)


def _gib(asset: str, load: Workload) -> float:
    width = hardware.dtype_of(load.dtype, hardware.device()).itemsize
    if asset in ("gradient_projections", "distillation_set") or (
        asset == "target_adapter" and load.trained_on
    ):
        model = parameters(load.target) * width / _GIB
        activations = load.tokens_per_batch * parameters(load.target) * _ACTIVATIONS / _GIB
        return _BASE_GIB + min(model + activations, hardware.device_memory() / _GIB)
    if asset in ("influence_encoder", "champion_encoder", "encoder_comparison"):
        size = 6 * parameters(load.encoder) * 4
        if asset == "influence_encoder" and not load.epochs:
            size += _MATRICES * 8 * _candidates(load) ** 2
        return _BASE_GIB + size / _GIB
    return _BASE_GIB
