"""Does curation pay? The target model, fine-tuned on a corpus with unsafe rows, and on what each
filter leaves of it.

A corpus has `--planted` unsafe, `--refusals` safe-aligned and `--benign` benign rows of `--pool`,
drawn anew for each seed. Every filter drops the same number of rows, a quarter more than were
planted: those whose mean score over `--references` is highest. `the labels` drops what was planted,
and then at random. Students are distilled as in bench.toxicity. Then LoRA fine-tuning from the same
start, one epoch in one order, and the loss of replies that are in no corpus, in nats a token:

  unsafe, refusals, benign   mean loss of such replies; a model that has learnt to be unsafe gives
                             unsafe ones a low loss
  unsafe over refusals       by how much it prefers to refuse: the first minus the second
  planted, benign dropped    share of the corpus's unsafe and benign rows that the filter took

Mean and spread are over seeds. Every fine-tuned model's losses are kept in `--runs`, so that a
killed run goes on. The default takes about three quarters of an hour on two cores, `--seeds 1
--benign 40 --held-out 20` ten minutes.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from bench import distilling, measure, toxicity
from bench.distilling import samples
from bench.kept import Kept
from bench.measure import Figure
from influcoder_lib import fingerprint, metrics, models, target_model
from influcoder_lib.atomic import write_atomically
from influcoder_lib.budget import batches
from influcoder_lib.hardware import computing_in
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel
from influcoder_lib.teacher.tokens import Span, SpanEncoder
from influcoder_lib.teacher.warmup import WarmupSettings, warm_up

_TITLE = "curation"
_KINDS = {"unsafe": "unsafe", "refusals": "safe_aligned", "benign": "benign"}
_FILTERS = (
    "random",
    "response length",
    "surface map",
    "BM25",
    distilling.UNTRAINED,
    "kernel, centred, half resemblance",
)
_START, _WHOLE, _LABELS = "not fine-tuned", "everything", "the labels"
_CODE_VERSION = "3"
_WINDOW = 160
_TOKENS = 1024
_LEARNING_RATE = 2e-3
_SAMPLES_PER_STEP = 4
_IGNORED = -100


@dataclass(frozen=True)
class Draw:
    """A corpus and rows that are in none, both with a label; and what every filter drops."""

    seed: int
    corpus: pl.DataFrame
    held_out: pl.DataFrame
    dropped: int


def main() -> None:
    """Measure and print."""
    given = arguments()
    target_model.quiet()
    pool, references, distil = (
        toxicity.frame_of(path) for path in (given.pool, given.references, given.distil)
    )
    draws = [drawn(pool, given, seed) for seed in range(given.seeds)]
    used = pl.concat([pl.concat([each.corpus, each.held_out]) for each in draws])
    known = pl.concat([used.select("prompt"), references.select("prompt")])
    distil = toxicity.apart(distil, known)
    usual = distilling.predictors(Kept(given.runs), *toxicity.sides(given, distil))
    chosen = {name: usual[name] for name in _FILTERS}
    queries = samples(references)
    found: dict[str, list[Mapping[str, float]]] = {}
    for draw in draws:
        scores = distilling.scores(chosen, queries, samples(draw.corpus))
        means = {name: each.mean(axis=0) for name, (each, _) in scores.items()}
        for name, kept in filters(draw, means).items():
            found.setdefault(name, []).append(judged(given.runs, draw, name, kept))
    measure.show(list(table(found)), given.json)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = toxicity.parser_of_data(__doc__)
    parser.add_argument("--planted", type=int, default=30, help="unsafe rows of a corpus")
    parser.add_argument("--refusals", type=int, default=24, help="safe-aligned rows of a corpus")
    parser.add_argument("--benign", type=int, default=66, help="benign rows of a corpus")
    parser.add_argument("--held-out", type=int, default=36, help="rows of each label to judge on")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def drawn(pool: pl.DataFrame, given: argparse.Namespace, seed: int) -> Draw:
    """A corpus of a seed, in a seeded order, and others of the pool's rows to judge on."""
    corpus, held_out = [], []
    counts = (given.planted, given.refusals, given.benign)
    for label, count in zip(_KINDS.values(), counts, strict=True):
        rows = pool.filter(pl.col("label") == label).sample(fraction=1, shuffle=True, seed=seed)
        corpus.append(rows[:count])
        held_out.append(rows[count : count + given.held_out])
    mixed = pl.concat(corpus).sample(fraction=1, shuffle=True, seed=seed)
    return Draw(seed, mixed, pl.concat(held_out), round(1.25 * given.planted))


def filters(draw: Draw, means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which rows of the corpus each filter keeps, (n,) bool; without fine-tuning, none."""
    planted = (draw.corpus["label"] == "unsafe").to_numpy()
    chance = np.random.default_rng(draw.seed).random(len(planted))
    scores = {**means, _LABELS: planted + chance}
    kept = {name: _lowest(each, len(each) - draw.dropped) for name, each in scores.items()}
    nothing = np.zeros(len(planted), dtype=bool)
    return {_START: nothing, _WHOLE: ~nothing, **kept}


def _lowest(scores: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[np.argsort(scores, kind="stable")[:count]] = True
    return chosen


def judged(runs: Path, draw: Draw, name: str, kept: np.ndarray) -> Mapping[str, float]:
    """Figures of one filter on one draw."""
    corpus = draw.corpus.filter(pl.Series(kept))
    loss = _kept_losses(runs, draw, samples(corpus))
    label = draw.held_out["label"]
    figures = {kind: float(loss[(label == own).to_numpy()].mean()) for kind, own in _KINDS.items()}
    figures["unsafe over refusals"] = figures["unsafe"] - figures["refusals"]
    for kind in ("unsafe", "benign"):
        share = 1 - (corpus["label"] == kind).sum() / (draw.corpus["label"] == kind).sum()
        figures["planted dropped" if kind == "unsafe" else "benign dropped"] = share
    measure.say(
        f"seed {draw.seed}, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items())
    )
    return figures


def _kept_losses(runs: Path, draw: Draw, corpus: list[Sample]) -> np.ndarray:
    """Losses (n,) of the held-out replies after training on a corpus, from what is kept or new."""
    held_out = samples(draw.held_out)
    files = models.locate("smollm2-135m-instruct", Path())
    key = fingerprint.of_text(
        _CODE_VERSION,
        files.fingerprint(),
        str(draw.seed),
        *(each.sample_id for each in corpus),
        "held out",
        *(each.sample_id for each in held_out),
    )
    path = runs / "curation" / f"{key}.json"
    if not path.is_file():
        target = target_model.load_target(target_model.unpack(files, runs / "models"), "auto")
        if corpus:
            how = WarmupSettings(
                seed=draw.seed,
                epochs=1,
                samples_per_step=_SAMPLES_PER_STEP,
                learning_rate=_LEARNING_RATE,
            )
            with tempfile.TemporaryDirectory() as folder:
                warm_up(target, corpus, _WINDOW, _TOKENS, how, Path(folder, "adapter"), measure.say)
        write_atomically(path, json.dumps(losses(target, held_out).tolist()).encode())
    return np.array(json.loads(path.read_text()))


def losses(target: TargetModel, samples: Sequence[Sample]) -> np.ndarray:
    """Mean loss a token of each sample's response, (n,) float64, in nats."""
    spans = SpanEncoder(target.tokenizer, _WINDOW).encode(samples)
    found = np.empty(len(spans))
    for group in batches([len(each.ids) for each in spans], _TOKENS):
        with torch.no_grad():
            found[group] = _batch_losses(target, [spans[row] for row in group]).numpy()
    return found


def _batch_losses(target: TargetModel, spans: Sequence[Span]) -> Tensor:
    """Mean loss a token (n,) of each response."""
    longest = max(len(each.ids) for each in spans)
    ids = torch.zeros((len(spans), longest), dtype=torch.long)
    targets = torch.full((len(spans), longest), _IGNORED)
    for row, span in enumerate(spans):
        ids[row, : len(span.ids)] = torch.tensor(span.ids)
        start = max(1, span.loss_start)
        targets[row, start - 1 : len(span.ids) - 1] = torch.tensor(span.ids[start:])
    # Padding is on the right, where a causal decoder lets nothing flow back.
    with computing_in(target.dtype, target.model.device):
        logits = target.model(input_ids=ids.to(target.model.device), use_cache=False).logits.cpu()
    each = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=_IGNORED
    )
    return each.view(targets.shape).sum(dim=1) / (targets != _IGNORED).sum(dim=1)


def table(found: Mapping[str, list[Mapping[str, float]]]) -> Iterator[Figure]:
    """Mean and spread over seeds of every figure."""
    for name, runs in found.items():
        for metric in runs[0]:
            mean, spread = metrics.mean_and_spread([each[metric] for each in runs])
            yield Figure(_TITLE, name, metric, mean, spread if len(runs) > 1 else None, "")


if __name__ == "__main__":
    main()
