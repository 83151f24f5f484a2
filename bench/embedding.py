"""Embedding of texts by all-MiniLM-L6-v2 and its students: speed, agreement, a whole corpus.

  stock           SentenceTransformer.encode as it comes: float32, its own window
  stock, window   the same with our window, so that both read the same tokens
  float32         ours in float32
  auto            ours as the pipeline uses it: bfloat16 where the machine has it
  kernel          the kernel student as the pipeline uses it
  static          the static student: the same on a table of token vectors, no transformer

  speed     texts of the toxicity pool in chunks; all do one chunk before any does the next, and
            the first is the warm-up. Agreement: Spearman with the scores of the stock encoder,
            mean and maximum over the pool's 10 queries. A token is counted as 2 operations a
            weight of the linear layers; attention is not credited.
  corpus    Dolly's texts recombined: read, tokenised, embedded, stored and written as a segment,
            in a process of its own

Training changes no cost, so the students have learnt nothing. The default takes about half an hour
on two cores, of which the corpus takes 20 minutes; a chunk is as long as what the pipeline embeds
at once. `--only speed --texts 192 --chunks 3` takes less than a minute.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer
from torch import nn

from bench import measure
from bench.measure import Figure
from bench.pipeline import write_corpus
from influcoder_assets.settings_models import EncoderSettings
from influcoder_lib import models, target_model
from influcoder_lib.curation import index
from influcoder_lib.curation.embedding import StoredVectors
from influcoder_lib.hardware import device, dtype_of
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.metrics import spearman_rows
from influcoder_lib.rows import open_rows
from influcoder_lib.samples import Sample, read_sample_blocks, to_samples
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from influcoder_lib.student.reading import text_of
from influcoder_lib.student.static import static_of
from influcoder_lib.student.training import TrainingSet
from influcoder_lib.vectors import unit_rows

TABLES = ("speed", "corpus")
STUDENTS = ("transformer", "kernel", "static")
_SETTINGS = EncoderSettings()
_SUPPORTS = 1300

Encode = Callable[[Sequence[Sample]], np.ndarray]


def main() -> None:
    """Measure and print."""
    given = arguments()
    target_model.quiet()
    # In a process of its own, so that the figures' memory is theirs alone.
    ceilings, _ = measure.alone(measure.ceilings)
    figures = list(ceilings.values())
    with tempfile.TemporaryDirectory() as made:
        folders, _ = measure.alone(students, Path(made), given.data)
        if "corpus" in given.only:
            for name in given.students:
                figures += corpus(given, name, folders[name], Path(made, f"{name}-corpus"))
        if "speed" in given.only:
            figures += speed(given, folders, ceilings)
    measure.show(figures, given.json)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--texts", type=int, default=4096, help="texts of the speed table")
    parser.add_argument("--chunks", type=int, default=4, help="at least 2; one is the warm-up")
    parser.add_argument(
        "--students", nargs="+", choices=STUDENTS, default=STUDENTS, help="of the corpus table"
    )
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the corpus")
    given = parser.parse_args()
    if not 2 <= given.chunks <= given.texts:
        parser.error("--chunks must be at least 2 and at most --texts")
    return given


def students(made: Path, data: Path) -> dict[str, Path]:
    """Folders of the transformer and of the students made of it."""
    packaged = models.check_encoder(models.locate(_SETTINGS.path, Path()))
    base, learnt = InfluenceEncoder.load(packaged, _SETTINGS.window), made_up(data)
    for name, words in (("kernel", base), ("static", static_of(base))):
        fit(words, learnt, _SETTINGS.dimension)[0].save(made / name)
    return dict(zip(STUDENTS, (packaged, made / "kernel", made / "static"), strict=True))


def made_up(data: Path) -> TrainingSet:
    """Samples with features that say nothing: as many as cost what a real student's do."""
    own = samples(data / "dolly.parquet", _SUPPORTS)
    features = np.random.default_rng(0).standard_normal((len(own), 256), dtype=np.float32)
    features = unit_rows(features)
    return TrainingSet(own[:300], own[300:], features[:300], features[300:])


def speed(
    given: argparse.Namespace, folders: dict[str, Path], ceilings: dict[str, Figure]
) -> Iterator[Figure]:
    """Texts and tokens a second, and agreement with the stock encoder's scores."""
    pool = samples(given.data / "toxicity_pool_dev.parquet", given.texts)
    queries = samples(given.data / "toxicity_ref_dev.parquet", None)
    chunks = [pool[start :: given.chunks] for start in range(given.chunks)]
    contenders = encoders(folders)
    timed: dict[str, list[np.ndarray]] = {name: [] for name in contenders}

    def measured(name: str) -> Callable[[int], float]:
        def one(repeat: int) -> float:
            begin = time.perf_counter()
            vectors = contenders[name](chunks[repeat])
            taken = time.perf_counter() - begin
            timed[name].append(vectors)
            return len(chunks[repeat]) / taken

        return one

    rates = measure.alternate({name: measured(name) for name in contenders}, given.chunks - 1)
    scores = {
        name: np.concatenate(timed[name]) @ contenders[name](queries).T for name in contenders
    }
    reader = InfluenceEncoder.load(folders["transformer"], _SETTINGS.window)
    tokens = [mean_tokens(reader, chunk) for chunk in chunks[1:]]
    operations = 2e-9 * linear_weights(reader)
    quickest = str(dtype_of("auto", reader.model.device)).removeprefix("torch.")
    title = f"embedding, {given.texts} texts of {statistics.mean(tokens):.0f} tokens"
    for name, found in rates.items():
        per_second = [rate * each for rate, each in zip(found, tokens, strict=True)]
        yield measure.figure(title, name, "speed", found, "texts/s")
        yield measure.figure(title, name, "tokens", per_second, "tokens/s")
        ratios = [rate / stock for rate, stock in zip(found, rates["stock"], strict=True)]
        yield measure.figure(title, name, "speed", ratios, "x stock")
        if name != "static":
            ceiling = ceilings[quickest if name in ("auto", "kernel") else "float32"].value
            shares = [100 * rate * operations / ceiling for rate in per_second]
            yield measure.figure(title, name, "of the dtype's matmul rate", shares, "%")
        if name in ("stock, window", "float32", "auto"):
            for statistic in ("mean", "max"):
                both = [getattr(scores[each], statistic)(axis=1)[None] for each in (name, "stock")]
                value = float(spearman_rows(*both)[0])
                yield Figure(title, name, f"Spearman with stock, {statistic}", value, None, "")
    ratios = [s / t for s, t in zip(rates["static"], rates["auto"], strict=True)]
    yield measure.figure(title, "static", "speed", ratios, "x auto")


def encoders(folders: dict[str, Path]) -> dict[str, Encode]:
    """What is compared, by name: samples in, vectors out."""
    packaged, window = folders["transformer"], _SETTINGS.window
    stock, same = (SentenceTransformer(str(packaged), device=str(device())) for _ in range(2))
    same.max_seq_length = window
    return {
        "stock": lambda given: stock.encode([text_of(each) for each in given]),
        "stock, window": lambda given: same.encode([text_of(each) for each in given]),
        "float32": InfluenceEncoder.load(packaged, window, "float32").encode,
        "auto": InfluenceEncoder.load(packaged, window).encode,
        "kernel": InfluenceEncoder.load(folders["kernel"], window).encode,
        "static": InfluenceEncoder.load(folders["static"], window).encode,
    }


def samples(path: Path, count: int | None, response: str = "response") -> list[Sample]:
    """Samples of a table, all of them or a seeded draw."""
    table = pl.read_parquet(path)
    drawn = table if count is None else table.sample(min(count, len(table)), seed=0)
    rows = drawn.select("prompt", response).rows()
    return [Sample(str(number), *pair) for number, pair in enumerate(rows)]


def mean_tokens(reader: InfluenceEncoder, texts: Sequence[Sample]) -> float:
    """Tokens that the transformer reads of a text, on average, padding not counted."""
    tokenizer = reader.model.tokenizer
    read = tokenizer([text_of(each) for each in texts], truncation=True, max_length=reader.window)
    return statistics.mean(len(ids) for ids in read["input_ids"])


def linear_weights(reader: InfluenceEncoder) -> int:
    """Weights that every token is multiplied with; a pooler over one token is none of them."""
    layers = reader.model[0].auto_model.encoder.modules()
    return sum(each.weight.numel() for each in layers if isinstance(each, nn.Linear))


def corpus(given: argparse.Namespace, name: str, folder: Path, made: Path) -> Iterator[Figure]:
    """Rows a second from raw file to index segment, and peak memory."""
    write_corpus(made, pl.read_parquet(given.data / "dolly.parquet"), given.rows, 1)
    taken, peak = measure.alone(embed_corpus, folder, made)
    title = f"corpus of {given.rows:,} rows, read, embedded and written"
    yield Figure(title, name, "speed", given.rows / taken, None, "rows/s")
    yield Figure(title, name, "time", taken, None, "s")
    yield Figure(title, name, "peak memory", peak, None, "MiB")


def embed_corpus(folder: Path, made: Path) -> float:
    """Seconds of all that the pipeline does to embed the one shard in `made`, loading included."""
    (raw,) = made.glob("*.jsonl")
    begin = time.perf_counter()
    target_model.quiet()
    table = made / "samples.parquet"
    columns = Columns(prompt="prompt", response="response")
    valid = ingest(raw, raw.name, columns, table, made / "bad.parquet", 200_000).valid
    loaded = InfluenceEncoder.load(folder, _SETTINGS.window)
    stored = StoredVectors(lambda: loaded, open_rows(made / "rows"), measure.say)
    stored.embed(map(to_samples, read_sample_blocks(table)), valid)
    ids = (block["sample_id"].to_list() for block in read_sample_blocks(table))
    (made / "segment").mkdir()
    index.write_segment(map(stored.vectors, ids), made / "segment")
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
