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
from influcoder_lib.student.reading import Batch
from influcoder_lib.student.training import Distilled, EpochLog, TrainingSet, validated

# The penalty is chosen among these, in units of the kernel of a sample with itself.
_PENALTIES = 10.0 ** np.arange(-3, 1.51, 0.25)
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
    """A student on this encoder's transformer, fitted to `train`; or the encoder, if it is better.

    Epoch 0 of the log is the encoder as it came, epoch 1 the student, and the better of the two on
    `validation` is the result. Its vectors have `dimension` numbers; those for influence span the
    leading right singular vectors of the train queries' features, and if there are fewer, the rest
    is 0. The penalty of each regression is the one with the least leave-one-out squared error of
    the influences on all train samples of the other side.

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
    return Distilled(student if best else encoder.copy(), log, best)


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
    span = _span(train.query_features, head.influencing)
    wanted = train.query_features @ span, train.candidate_features @ span
    given = (
        describe(student, train.queries, "query"),
        describe(student, train.candidates, "candidate"),
    )
    foreseen, _ = _regress(head.query, given[0], wanted[0], _moment(wanted[1]))
    predicted, loss = _regress(head.candidate, given[1], wanted[1], _moment(wanted[0]))
    asked, offered = (head.embedding(each).cpu().numpy() for each in given)
    head.basis.copy_(torch.from_numpy(_directions(asked, offered, head.resembling)))
    basis = head.basis.cpu().numpy()
    spreads = [
        _spread(_units(foreseen) @ predicted.T),
        _spread(asked @ basis @ (offered @ basis).T),
    ]
    head.spreads.copy_(torch.tensor(spreads))
    return student, loss


def _moment(features: np.ndarray) -> np.ndarray:
    return features.T.astype(np.float64) @ features / len(features)


def _directions(queries: np.ndarray, candidates: np.ndarray, numbers: int) -> np.ndarray:
    """Directions (h, numbers) that hold most of both sides' vectors (n, h), which weigh the same;
    beyond their rank, zeros."""
    both = [each / np.sqrt(len(each)) for each in (queries, candidates)]
    return _span(np.concatenate(both), numbers)


def _spread(scores: np.ndarray) -> float:
    """Standard deviation of scores, 1 if they are all the same."""
    return float(scores.std()) or 1.0


def _units(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def describe(student: InfluenceEncoder, samples: Sequence[Sample], role: Role) -> Tensor:
    """What the student's head is told of the samples: (n, D) float32, on the model's device."""
    words, head = student.model[0], student.model[1]

    def run(batch: Batch) -> Tensor:
        # In a dict of its own: the transformer adds the hidden states of all layers to the one it
        # is given, and the batch is kept.
        return head.describe(words({**batch.inputs})).float()

    batches, found = zip(*student.compute(samples, role, run), strict=True)
    back = np.argsort(np.concatenate([batch.rows for batch in batches]), kind="stable")
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
    _, values, directions = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    kept = directions[:numbers][values[:numbers] > values[0] * 1e-3]
    span = np.zeros((features.shape[1], numbers), np.float32)
    span[:, : len(kept)] = kept.T
    return span


def _regress(
    regression: Regression, given: Tensor, wanted: np.ndarray, metric: np.ndarray
) -> tuple[np.ndarray, float]:
    """Fit to descriptions (n, D) and numbers (n, k); an error e weighs eᵀ metric e.

    Returns what is predicted of each sample from all others and the mean of all (n, k), and the
    error of that as a share of what the mean alone leaves.
    """
    regression.mean.copy_(given.mean(dim=0))
    regression.factor.copy_(_factor(regression, given))
    regression.support.copy_(regression.scaled(given))
    kernel = regression.kernel(regression.support).double().cpu().numpy()
    offset = wanted.mean(axis=0, dtype=np.float64)
    centred = wanted - offset
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)
    rotated = vectors.T @ centred
    squares = np.square(vectors)
    errors = []
    for penalty in _PENALTIES:
        # What is left of a target, over what its own sample did not explain, is the error of the
        # regression without it (Allen's PRESS).
        shrunk = penalty / (values + penalty)
        left, own = vectors @ (shrunk[:, None] * rotated), squares @ shrunk
        errors.append(left / own[:, None])
    losses = [_error(each, metric) for each in errors]
    best = int(np.argmin(losses))
    dual = vectors @ (rotated / (values + _PENALTIES[best])[:, None])
    regression.dual.copy_(torch.from_numpy(dual))
    regression.offset.copy_(torch.from_numpy(offset))
    base = _error(centred, metric)
    return wanted - errors[best], losses[best] / base if base > 0 else 1.0


def _error(errors: np.ndarray, metric: np.ndarray) -> float:
    return float(((errors @ metric) * errors).sum())


def _factor(regression: Regression, given: Tensor) -> Tensor:
    """Scale (D,) to variance 1 and, piece by piece, to `_MEDIAN_EXPONENT` at the median distance of
    pairs that differ; what does not vary here gets 0, however it varies later."""
    spread = given.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0)
    pieces = []
    for piece in ((given - given.mean(dim=0)) * scale).split(regression.groups, dim=1):
        # No pairs are listed: for thousands of samples they would take more than the distances.
        own = square_distances(piece, piece)
        own.masked_fill_(own <= _EQUAL * piece.shape[1], torch.nan)
        middle = own.nanmedian().nan_to_num()
        unit = (_MEDIAN_EXPONENT / middle).sqrt() if middle > 0 else torch.zeros(())
        pieces.append(unit.to(own.device).expand(piece.shape[1]))
    return scale * torch.cat(pieces)
