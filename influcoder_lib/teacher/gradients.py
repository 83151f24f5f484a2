"""Every sample's own LoRA gradient, sketched, from one forward and one backward of a batch.

For a linear layer with input x, LoRA factors A, B and gradient d at its output, the chain rule
gives, a sample at a time,

    dL/dB = scale * sum_t d_t (A x_t)^T          dL/dA = scale * sum_t (B^T d_t) x_t^T

so hooks on the plain layer that see x and d are enough. With B = 0 the second is zero. The batch's
loss is the sum of the samples' mean losses, whose gradient at the logits is written down directly;
rows are padded on the right, where a causal decoder lets nothing flow back, so neither padding nor
neighbours change a gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from influcoder_lib.budget import TokenBudget
from influcoder_lib.errors import ModelError
from influcoder_lib.hardware import computing_in, deterministic
from influcoder_lib.samples import Sample
from influcoder_lib.target_model import TargetModel
from influcoder_lib.teacher import attention
from influcoder_lib.teacher.adapters import AdaptedLayer
from influcoder_lib.teacher.sketch import Sketch
from influcoder_lib.teacher.tokens import Span, span_encoder

# Logits of so many tokens over a vocabulary of 50,000 stay in the cache of most CPUs; a GPU wants
# more at once.
_ROWS = {"cpu": 32, "cuda": 512}

Sink = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class FeatureBatch:
    """Gradient features of some samples: indices into the samples given, rows (n, D) float32.

    Rows are what the sketch makes of a gradient: L2-normalised by a CountSketch. A sample without
    a finite, non-zero gradient has no row; it is in `unusable` with its reason. `truncated` (n,)
    bool says which were cut to fit the window. `tokens` were computed, and `left` are still to be.
    """

    indices: list[int]
    rows: np.ndarray
    truncated: np.ndarray
    unusable: dict[int, str]
    tokens: int
    left: int = 0


class GradientFeatures:
    """Computes gradient features of samples for one target model, adapter and sketch.

    Raises:
        SettingsError: the window has more tokens than the model has places for.
    """

    def __init__(
        self,
        target: TargetModel,
        layers: Sequence[AdaptedLayer],
        sketch: Sketch,
        window: int,
        tokens_per_batch: int,
    ) -> None:
        self.target = target
        self.layers = list(layers)
        self.sketch = sketch
        self.spans = span_encoder(target, window)
        self._budget = TokenBudget(tokens_per_batch, "target_model.window")

    @property
    def tokens_per_batch(self) -> int:
        """Tokens that a batch may have, padding included; fewer than were asked for once a batch
        has not fitted into memory."""
        return self._budget.tokens

    def features(self, samples: Sequence[Sample]) -> Iterator[FeatureBatch]:
        """Features batch by batch, longest samples first; together they cover every sample.

        Raises:
            ModelError: a sample does not fit into memory, even alone.
        """
        spans = self.spans.encode(samples)
        unusable = {
            index: "the response has no token: its loss span is empty"
            for index, span in enumerate(spans)
            if not span.usable
        }
        usable = [index for index in range(len(spans)) if index not in unusable]
        lengths = [len(spans[index].ids) for index in usable]
        left = sum(lengths)
        if unusable:
            none = np.empty((0, self.sketch.dimensions), np.float32)
            yield FeatureBatch([], none, np.empty(0, bool), unusable, 0, left)

        def run(rows: np.ndarray) -> FeatureBatch:
            indices = [usable[row] for row in rows]
            return self._batch(indices, [spans[index] for index in indices])

        for batch in self._budget.spend(
            lengths, run, lambda row: f"sample {samples[usable[row]].sample_id}"
        ):
            left -= batch.tokens
            yield replace(batch, left=left)

    def gradients(self, spans: Sequence[Span]) -> dict[str, Tensor]:
        """Full gradients of a batch by factor name: (n, d_out, r) and (n, r, d_in) float32.

        Raises:
            ModelError: a layer mixes the rows of a batch, so samples cannot be told apart.
        """
        collected: dict[str, Tensor] = {}

        def keep(name: str, gradient: Tensor) -> None:
            collected[name] = collected[name] + gradient if name in collected else gradient

        backward(self.target, spans, self.layers, keep)
        return collected

    def _batch(self, indices: list[int], spans: list[Span]) -> FeatureBatch:
        accumulator = self.sketch.empty(len(spans), self.target.model.device)
        backward(
            self.target,
            spans,
            self.layers,
            lambda name, grad: self.sketch.add(accumulator, name, grad),
        )
        rows = accumulator.T.cpu()
        norms = rows.norm(dim=1)
        good = torch.isfinite(norms) & (norms > 0)
        unusable = {
            index: "the gradient is zero" if norm == 0 else "the gradient is not finite"
            for index, norm, fine in zip(indices, norms.tolist(), good.tolist(), strict=True)
            if not fine
        }
        kept = [index for index, fine in zip(indices, good.tolist(), strict=True) if fine]
        found = self.sketch.features(rows[good]).numpy()
        truncated = np.array([span.truncated for span in spans], dtype=bool)[good.numpy()]
        tokens = sum(len(span.ids) for span in spans)
        return FeatureBatch(kept, found, truncated, unusable, tokens)


def backward(
    target: TargetModel,
    spans: Sequence[Span],
    layers: Sequence[AdaptedLayer] = (),
    sink: Sink = lambda name, gradients: None,
) -> None:
    """One forward and backward of a batch, whose loss is the sum of the spans' mean losses.

    Every sample's own gradients of the layers' factors go into `sink` by factor name, those of a
    layer that is used twice in two parts. Parameters of the model that ask for a gradient get it.

    Raises:
        ModelError: a layer mixes the rows of a batch, so samples cannot be told apart.
    """
    model = target.model
    ids, targets = (tensor.to(model.device) for tensor in _pad(spans))
    if model.device.type == "cpu":
        attention.select(model, ids.shape[1])
    predicted = targets.roll(-1, dims=1) >= 0
    hooks = _Hooks(layers, model, len(spans), predicted, sink)
    with hooks, deterministic(warn_only=False), torch.enable_grad():
        with computing_in(target.dtype, model.device):
            logits = model(input_ids=ids, use_cache=False).logits
        logits.backward(_loss_gradient(logits.detach(), targets[targets >= 0], predicted))


def _pad(spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Right-padded ids and targets (-1 outside the loss), each (n, longest)."""
    longest = max(len(span.ids) for span in spans)
    # What padding says changes nothing, and the tokenizer's own may be no row of the model's table.
    ids = torch.zeros(len(spans), longest, dtype=torch.int64)
    targets = torch.full((len(spans), longest), -1)
    for row, span in enumerate(spans):
        ids[row, : len(span.ids)] = torch.tensor(span.ids)
        # The first token of a row has nothing before it that could predict it.
        start = max(1, span.loss_start)
        targets[row, start : len(span.ids)] = torch.tensor(span.ids[start:])
    return ids, targets


class _Hooks:
    """Hooks on the adapted layers for one forward and backward; gone when the block ends."""

    def __init__(
        self,
        layers: Sequence[AdaptedLayer],
        model: Any,
        samples: int,
        predicted: Tensor,
        sink: Sink,
    ) -> None:
        self.samples = samples
        self.sink = sink
        embeddings = model.get_input_embeddings()
        self._handles = [embeddings.register_forward_hook(_require_grad)]
        # The head is by far the widest layer: it sees only tokens whose next one is in the loss.
        head = model.get_output_embeddings()
        self._handles.append(
            head.register_forward_pre_hook(lambda module, inputs: (inputs[0][predicted],))
        )
        self._cast: tuple[Tensor, Tensor] | None = None
        for layer in layers:
            self._handles.append(layer.module.register_forward_pre_hook(self._narrow))
            self._handles.append(layer.module.register_forward_hook(self._watch(layer)))

    def __enter__(self) -> "_Hooks":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        # What is kept here holds its graph, which holds these hooks: a circle that nobody breaks.
        self._cast = None

    def _narrow(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The input in the weights' dtype, cast once for all layers that share it."""
        weight: Any = module.weight
        x = inputs[0]
        if x.dtype == weight.dtype:
            return inputs
        if self._cast is None or self._cast[0] is not x:
            self._cast = x, x.to(weight.dtype)
        return (self._cast[1], *inputs[1:])

    def _watch(self, layer: AdaptedLayer) -> Any:
        def on_forward(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            if x.ndim != 3 or len(x) != self.samples:
                raise ModelError(
                    f"The layer {layer.name} sees its input as {tuple(x.shape)}, which mixes the "
                    f"{self.samples} samples of a batch.",
                    allowed="layers whose input is (samples, tokens, width)",
                    fix="choose another target model",
                )
            ax = functional.linear(x, layer.a)
            kept_x = x if layer.b is not None else None
            output.register_hook(lambda delta: self._collect(layer, ax, kept_x, delta))

        return on_forward

    def _collect(self, layer: AdaptedLayer, ax: Tensor, x: Tensor | None, delta: Tensor) -> None:
        delta = delta.to(ax.dtype)
        grad_b = torch.bmm(delta.transpose(1, 2), ax).float() * layer.scale
        self.sink(f"{layer.name}.B", grad_b)
        if layer.b is not None and x is not None:
            grad_a = torch.bmm((delta @ layer.b).transpose(1, 2), x).float() * layer.scale
            self.sink(f"{layer.name}.A", grad_a)


def _require_grad(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.detach().requires_grad_(True)


def _loss_gradient(logits: Tensor, targets: Tensor, predicted: Tensor) -> Tensor:
    """Gradient (n, V) of the sum of mean cross-entropies at the logits (n, V): softmax - one-hot.

    `targets` (n,) are the next tokens; `predicted` (samples, tokens) marks the n positions.
    """
    counts = predicted.sum(dim=1)
    weights = (1.0 / counts).repeat_interleave(counts)
    gradient = torch.empty_like(logits)
    step = _ROWS[logits.device.type]
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        part = torch.softmax(logits[rows].float(), dim=1)
        part[torch.arange(len(part), device=part.device), targets[rows]] -= 1
        gradient[rows] = part.mul_(weights[rows, None])
    return gradient
