"""Distillation in closed form: kernel ridge regression of the teacher's features.

The encoder's transformer, or its table of token vectors, stays as it came. What it and the surface
of a text tell (`head.py`) is regressed on the teacher's features, queries and candidates each for
themselves: no epochs, no learning rate, no seed, and the same student every time.
"""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, StaticEmbedding, Transformer
from torch import Tensor

from influcoder_lib.budget import reordered
from influcoder_lib.errors import ModelError
from influcoder_lib.samples import Role, Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import KernelHead, Regression, blend, square_distances
from influcoder_lib.student.reading import Batch
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet, validated
from influcoder_lib.vectors import unit_rows

# Alpha, the ridge penalty, is chosen among these, in units of the kernel of a sample with itself.
_ALPHAS = 10.0 ** np.arange(-3, 1.51, 0.25)
# What lengths and surface weigh, to 1 of the words; the first of equally good ones.
_TOLD = (1.0, 0.3, 3.0, 0.1)
# So many samples choose it: the time of a decomposition grows with the cube of their number.
_CHOOSING = 2000
# What the kernel's exponent is of two samples at the median distance of one piece.
_MEDIAN_EXPONENT = 0.5
# Squared distances up to this, for each number of a piece, are those of equal texts: rounding.
_EQUAL = 1e-4


def distill_kernel(
    encoder: InfluenceEncoder,
    train: TrainingSet,
    validation: TrainingSet,
    dimension: int,
    progress: Callable[[EpochLog], None] = lambda log: None,
) -> Distilled:
    """A student on this encoder's first module, fitted to `train`; or the encoder, if it is better.

    Epoch 0 of the log is the encoder as it came, epoch 1 the student, and the better of the two on
    `validation` is the result. Its vectors have `dimension` numbers; those for influence span the
    leading right singular vectors of the train queries' features, and if there are fewer, the rest
    is 0. Alpha of each regression, and what lengths and surface weigh in it, have the least
    leave-one-out squared error of the influences on all train samples of the other side; the
    weight is chosen on 2,000 samples, evenly spaced, where there are more.

    Raises:
        ModelError: the encoder's first module is neither a transformer nor static.
    """
    started = time.perf_counter()
    log = [validated(encoder, validation, 0, None, started)]
    progress(log[0])
    started = time.perf_counter()
    student, loss = fit(encoder, train, dimension)
    log.append(validated(student, validation, 1, loss, started))
    progress(log[1])
    best = max(log, key=lambda each: (each.validation, -each.epoch)).epoch
    return Distilled(student if best else encoder.copy(), log, best)


def fit(
    encoder: InfluenceEncoder, train: TrainingSet, dimension: int
) -> tuple[InfluenceEncoder, float]:
    """The fitted student, with vectors of `dimension` numbers, and the share of the influences'
    variance over candidates that its candidates leave unexplained, leaving one out.

    Raises:
        ModelError: the encoder's first module is neither a transformer nor static.
    """
    student = _unfitted(encoder, train, dimension)
    head = student.model[1]
    span = _span(train.query_features, head.influencing)
    query_targets, candidate_targets = train.query_features @ span, train.candidate_features @ span
    queries = featurize(student, train.queries, "query")
    candidates = featurize(student, train.candidates, "candidate")
    loo_queries, _ = _regress(head.query, queries, query_targets, _moment(candidate_targets))
    loo_candidates, loss = _regress(
        head.candidate, candidates, candidate_targets, _moment(query_targets)
    )
    query_embeddings, candidate_embeddings = (
        head.embedding(each).cpu().numpy() for each in (queries, candidates)
    )
    directions = _directions(query_embeddings, candidate_embeddings, head.resembling)
    head.basis.copy_(torch.from_numpy(directions))
    basis = head.basis.cpu().numpy()
    influence = unit_rows(loo_queries) @ loo_candidates.T
    resemblance = query_embeddings @ basis @ (candidate_embeddings @ basis).T
    head.spreads.copy_(torch.tensor([_std(influence), _std(resemblance)]))
    return student, loss


def _moment(features: np.ndarray) -> np.ndarray:
    """Second moments (k, k) float64 of features (n, k), about zero."""
    return features.T.astype(np.float64) @ features / len(features)


def _directions(queries: np.ndarray, candidates: np.ndarray, rank: int) -> np.ndarray:
    """Directions (h, rank) float32 that hold most of both sides' vectors (n, h), which weigh the
    same; of a lesser rank, zeros."""
    both = [each / np.sqrt(len(each)) for each in (queries, candidates)]
    return _span(np.concatenate(both), rank)


def _std(scores: np.ndarray) -> float:
    """Standard deviation of scores, 1 if they are all the same."""
    return float(scores.std()) or 1.0


def featurize(student: InfluenceEncoder, samples: Sequence[Sample], role: Role) -> Tensor:
    """What the student's head is told of the samples: (n, D) float32, on the model's device."""
    transformer, head = student.model[0], student.model[1]

    def run(batch: Batch) -> Tensor:
        # In a dict of its own: the transformer adds the hidden states of all layers to the one it
        # is given, and the batch is kept.
        return head.featurize(transformer({**batch.inputs})).float()

    batches, blocks = zip(*student.compute(samples, role, run), strict=True)
    return reordered((batch.rows for batch in batches), blocks)


def _unfitted(encoder: InfluenceEncoder, train: TrainingSet, dimension: int) -> InfluenceEncoder:
    words = copy.deepcopy(encoder.model[0])
    head = KernelHead(
        layers=_layers(words),
        width=words.get_embedding_dimension(),
        dimension=dimension,
        supports=[len(train.queries), len(train.candidates)],
    )
    model = SentenceTransformer(
        modules=[words, head, Normalize()],
        device=encoder.model.device.type,
        prompts=encoder.model.prompts,
        default_prompt_name=encoder.model.default_prompt_name,
    )
    return InfluenceEncoder(model.eval(), encoder.window, encoder.precision)


def _layers(words: Any) -> list[int]:
    """The hidden states that the head reads, which a transformer is set to give."""
    if isinstance(words, StaticEmbedding):
        return [0]
    if not isinstance(words, Transformer):
        raise ModelError(
            "Prompt and response cannot be told apart by this encoder.",
            where="encoder.architecture",
            allowed="an encoder whose first module is a Transformer or a StaticEmbedding",
        )
    words.auto_model.config.output_hidden_states = True
    depth = int(words.auto_model.config.num_hidden_layers)
    return sorted({0, depth // 2, depth})


def _span(features: np.ndarray, rank: int) -> np.ndarray:
    """Leading right singular vectors (D, rank) float32 of features (Q, D); of a lesser rank,
    zeros."""
    _, values, directions = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    kept = directions[:rank][values[:rank] > values[0] * 1e-3]
    span = np.zeros((features.shape[1], rank), np.float32)
    span[:, : len(kept)] = kept.T
    return span


def _regress(
    regression: Regression, features: Tensor, targets: np.ndarray, metric: np.ndarray
) -> tuple[np.ndarray, float]:
    """Fit to features (n, D) and targets (n, k); an error e weighs eᵀ metric e.

    Returns the leave-one-out predictions (n, k), with the mean of all as intercept, and their error
    as a share of what the mean alone leaves.
    """
    regression.mean.copy_(features.mean(dim=0))
    regression.factor.copy_(_factor(regression, features))
    regression.support.copy_(regression.scaled(features))
    pools, outright = (each.double() for each in regression.kernels(regression.support))
    intercept = targets.mean(axis=0, dtype=np.float64)
    centred = targets - intercept
    regression.told = _chosen_weight(pools, outright, centred, metric)
    best = _ridge(blend(pools, outright, regression.told).cpu().numpy(), centred, metric)
    regression.dual.copy_(torch.from_numpy(best.dual))
    regression.offset.copy_(torch.from_numpy(intercept))
    base = _error(centred, metric)
    return targets - best.errors, best.loss / base if base > 0 else 1.0


def _chosen_weight(
    pools: Tensor, outright: Tensor, centred: np.ndarray, metric: np.ndarray
) -> float:
    """What the second kernel (n, n) weighs, to 1 of the first, where the error of the centred
    targets (n, k) is least by the metric (k, k)."""
    count = min(len(pools), _CHOOSING)
    rows = np.arange(count) * len(pools) // count
    own, other = (each[rows][:, rows].cpu() for each in (pools, outright))
    losses = {
        told: _ridge(blend(own, other, told).numpy(), centred[rows], metric).loss for told in _TOLD
    }
    return min(losses, key=lambda told: losses[told])


class _Ridge(NamedTuple):
    """Dual coefficients (n, k), leave-one-out errors (n, k), and the sum of what these weigh."""

    dual: np.ndarray
    errors: np.ndarray
    loss: float


def _ridge(kernel: np.ndarray, centred: np.ndarray, metric: np.ndarray) -> _Ridge:
    """The ridge regression of centred targets (n, k) by a kernel (n, n) whose alpha is best."""
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)
    rotated = vectors.T @ centred
    squares = np.square(vectors)
    errors = []
    for alpha in _ALPHAS:
        # A residual over 1 - its leverage is the error of the regression without that sample
        # (Allen's PRESS).
        shrinkage = alpha / (values + alpha)
        residuals, unlevered = vectors @ (shrinkage[:, None] * rotated), squares @ shrinkage
        errors.append(residuals / unlevered[:, None])
    losses = [_error(each, metric) for each in errors]
    best = int(np.argmin(losses))
    dual = vectors @ (rotated / (values + _ALPHAS[best])[:, None])
    return _Ridge(dual, errors[best], losses[best])


def _error(errors: np.ndarray, metric: np.ndarray) -> float:
    """Sum over n of eᵀ metric e for the errors (n, k)."""
    return float(((errors @ metric) * errors).sum())


def _factor(regression: Regression, features: Tensor) -> Tensor:
    """Scale (D,) to variance 1 and, piece by piece, to `_MEDIAN_EXPONENT` at the median distance of
    pairs that differ; what does not vary here gets 0, however it varies later."""
    std = features.std(dim=0, correction=0)
    scale = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 0)
    pieces = []
    for piece in ((features - features.mean(dim=0)) * scale).split(regression.groups, dim=1):
        # No pairs are listed: for thousands of samples they would take more than the distances.
        distances = square_distances(piece, piece)
        distances.masked_fill_(distances <= _EQUAL * piece.shape[1], torch.nan)
        median = distances.nanmedian().nan_to_num()
        unit = (_MEDIAN_EXPONENT / median).sqrt() if median > 0 else torch.zeros(())
        pieces.append(unit.to(distances.device).expand(piece.shape[1]))
    return scale * torch.cat(pieces)
