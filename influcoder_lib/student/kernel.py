"""Distillation in closed form: kernel ridge regression of the teacher's features.

The encoder's transformer stays as it came. What it and the surface of a text tell (`head.py`) is
regressed on the teacher's features, queries and candidates each for themselves: no epochs, no
learning rate, no seed, and the same student every time.
"""

import copy
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Transformer
from torch import Tensor

from influcoder_lib.errors import ModelError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import KernelHead, Regression, Role, square_distances
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet, validated

# The penalty is chosen among these, in units of the kernel of a sample with itself.
_PENALTIES = 10.0 ** np.arange(-3, 1.51, 0.25)
# Half of exp(-1/2) away: a sample and another at the median distance of one piece.
_MEDIAN_EXPONENT = 0.5


def distill_kernel(
    encoder: InfluenceEncoder,
    train: TrainingSet,
    validation: TrainingSet,
    dimension: int,
    progress: Callable[[EpochLog], None] = lambda log: None,
) -> Distilled:
    """A student on this encoder's transformer, fitted to `train`; or the encoder, if it is better.

    Epoch 0 of the log is the encoder as it came, epoch 1 the student, and the better of the two on
    `validation` is the result. Its vectors have `dimension` numbers, of which all but one span the
    leading right singular vectors of the train queries' features; if there are fewer, the rest is
    0. The penalty of each regression is the one with the least leave-one-out squared error of the
    influences on all train samples of the other side.

    Raises:
        ModelError: the encoder's first module is no transformer.
    """
    started = time.perf_counter()
    log = [validated(encoder, validation, 0, None, started)]
    progress(log[0])
    started = time.perf_counter()
    student, loss = fit(encoder, train, dimension)
    log.append(validated(student, validation, 1, loss, started))
    progress(log[1])
    best = max(log, key=lambda each: (each.validation, -each.epoch)).epoch
    return Distilled((encoder.copy(), student)[best], log, best)


def fit(
    encoder: InfluenceEncoder, train: TrainingSet, dimension: int
) -> tuple[InfluenceEncoder, float]:
    """The fitted student, and the share of the influences' variance over candidates that its
    candidates leave unexplained, leaving one out.

    Raises:
        ModelError: the encoder's first module is no transformer.
    """
    student = _unfitted(encoder, train, dimension)
    head = student.model[1]
    span = _span(train.query_features, dimension - 1)
    queries, candidates = train.query_features @ span, train.candidate_features @ span
    sides: tuple[tuple[Role, list[Sample], np.ndarray, np.ndarray], ...] = (
        ("query", train.queries, queries, candidates),
        ("candidate", train.candidates, candidates, queries),
    )
    loss = 0.0
    for role, samples, own, other in sides:
        metric = other.T.astype(np.float64) @ other / len(other)
        regression = head.get_submodule(role)
        loss = _regress(regression, describe(student, samples, role), own, metric)
    return student, loss


def describe(student: InfluenceEncoder, samples: Sequence[Sample], role: Role) -> Tensor:
    """What the student's head is told of the samples: (n, D) float32, on the model's device."""
    words, head = student.model[0], student.model[1]
    rows, found = [], []
    with torch.no_grad(), student.computing_in(student.precision):
        for batch in student.batches(samples, role):
            rows.append(batch.rows)
            found.append(head.describe(words(batch.inputs)).float())
    back = np.argsort(np.concatenate(rows), kind="stable")
    return torch.cat(found)[torch.from_numpy(back).to(student.model.device)]


def _unfitted(encoder: InfluenceEncoder, train: TrainingSet, dimension: int) -> InfluenceEncoder:
    words = encoder.model[0]
    if not isinstance(words, Transformer):
        raise ModelError(
            "Prompt and response cannot be told apart by this encoder.",
            where="encoder.architecture: kernel",
            allowed="an encoder whose first module is a Transformer",
        )
    words = copy.deepcopy(words)
    words.auto_model.config.output_hidden_states = True
    depth = int(words.auto_model.config.num_hidden_layers)
    head = KernelHead(
        layers=sorted({0, depth // 2, depth}),
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


def _span(features: np.ndarray, numbers: int) -> np.ndarray:
    """Leading right singular vectors (D, numbers) of features (Q, D); of a lesser rank, zeros."""
    values, vectors = np.linalg.eigh(features.astype(np.float64) @ features.T)
    order = np.argsort(-values, kind="stable")[:numbers]
    order = order[values[order] > values[order[0]] * 1e-6]
    span = np.zeros((features.shape[1], numbers))
    span[:, : len(order)] = features.T @ vectors[:, order] / np.sqrt(values[order])
    return span.astype(np.float32)


def _regress(
    regression: Regression, given: Tensor, wanted: np.ndarray, metric: np.ndarray
) -> float:
    """Fit to descriptions (n, D) and numbers (n, k); errors e weigh eᵀ metric e.

    Returns the leave-one-out error, as a share of what the mean of the others leaves.
    """
    regression.mean.copy_(given.mean(dim=0))
    regression.factor.copy_(_factor(regression, given))
    regression.support.copy_(regression.scaled(given))
    kernel = regression.kernel(regression.support).double().cpu().numpy()
    offset = wanted.mean(axis=0, dtype=np.float64)
    centred = wanted - offset
    values, vectors = np.linalg.eigh(kernel)
    rotated = vectors.T @ centred
    errors = []
    for penalty in _PENALTIES:
        kept = np.maximum(values, 0) / (np.maximum(values, 0) + penalty)
        own = np.square(vectors) @ kept
        errors.append(
            _error((centred - vectors @ (kept[:, None] * rotated)) / (1 - own)[:, None], metric)
        )
    penalty = _PENALTIES[int(np.argmin(errors))]
    dual = vectors @ (rotated / (np.maximum(values, 0) + penalty)[:, None])
    regression.dual.copy_(torch.from_numpy(dual))
    regression.offset.copy_(torch.from_numpy(offset))
    others = len(wanted) / max(len(wanted) - 1, 1)
    base = _error(centred * others, metric)
    return min(errors) / base if base > 0 else 1.0


def _error(errors: np.ndarray, metric: np.ndarray) -> float:
    return float(np.einsum("nk,kl,nl->", errors, metric, errors))


def _factor(regression: Regression, given: Tensor) -> Tensor:
    """Scale (D,) to variance 1 and, piece by piece, to `_MEDIAN_EXPONENT` at the median distance;
    what does not vary here gets 0, however it varies later."""
    spread = given.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0)
    pieces = []
    for piece in ((given - given.mean(dim=0)) * scale).split(regression.groups, dim=1):
        own = square_distances(piece, piece)
        first, second = torch.triu_indices(len(own), len(own), offset=1, device=own.device)
        middle = own[first, second].median() if len(own) > 1 else own.sum()
        unit = (_MEDIAN_EXPONENT / middle).sqrt() if middle > 0 else torch.zeros(())
        pieces.append(unit.to(own.device).expand(piece.shape[1]))
    return scale * torch.cat(pieces)
