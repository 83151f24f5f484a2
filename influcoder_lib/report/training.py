"""The picture of a training: loss and validation fidelity by epoch, a line a seed."""

import io
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.figure import Figure


class Epoch(Protocol):
    """What is drawn of one epoch."""

    @property
    def epoch(self) -> int: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def validation_per_query(self) -> float: ...
    @property
    def validation_aggregated(self) -> float: ...


_PANELS = (
    ("loss", "training loss"),
    ("validation_per_query", "validation fidelity, per query"),
    ("validation_aggregated", "validation fidelity, aggregated"),
)


def training_picture(logs: Mapping[int, Sequence[Epoch]]) -> bytes:
    """PNG of three panels: training loss and the two validation fidelities."""
    figure = Figure(figsize=(10, 3.2), dpi=100, layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for seed, log in logs.items():
            points = [(e.epoch, getattr(e, name)) for e in log if getattr(e, name) is not None]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"seed {seed}")
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
