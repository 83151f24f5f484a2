"""The report's pictures: small PNGs (900 x 420) of a behavior's scores and of the shards' funnel.

Equal input gives equal bytes. Colors are those of Okabe and Ito (2008), told apart with any color
vision; line styles repeat the distinction. Nothing here touches pyplot's global state. A label in a
script that the font lacks has a stand-in, which `label_key` tells.
"""

import functools
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogFormatter, PercentFormatter
from PIL import Image

from influcoder_lib.report.groups import OTHERS
from influcoder_lib.report.layout import BIN_EDGES
from influcoder_lib.report.model import (
    BehaviorReport,
    FunnelRow,
    LabelHistogram,
    ThresholdCurve,
    threshold_curves,
)
from influcoder_lib.report.wording import count, label, percent

MAX_SHARDS = 14
MAX_LABELS = 6
_FLOOR = 0.7
# Both pictures of a behavior have the same, so that their scores line up one below the other.
_MARGINS = {"left": 0.15, "right": 0.94, "bottom": 0.12, "top": 0.93}
# Markdown shows pictures that the HTML file has too.
_drawn_once = functools.lru_cache(maxsize=64)
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))


@dataclass(frozen=True)
class Theme:
    """Colors of one appearance; `labels` holds MAX_LABELS of them."""

    background: str
    text: str
    faint: str
    kept: str
    dropped: str
    quarantined: str
    labels: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff",
    text="#1b2330",
    faint="#d7dce3",
    kept="#56b4e9",
    dropped="#d55e00",
    quarantined="#9aa3af",
    labels=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07f00", "#6b7280"),
)
DARK = Theme(
    background="#161b22",
    text="#e6e9ee",
    faint="#343c48",
    kept="#3b8fc4",
    dropped="#f0803c",
    quarantined="#8b93a0",
    labels=("#56b4e9", "#f0803c", "#2fc69a", "#e09cc5", "#f0e442", "#aab2bf"),
)


@_drawn_once
def score_histogram(behavior: BehaviorReport, theme: Theme) -> bytes:
    """PNG: how many samples of each label have which score, with the threshold."""
    figure, axes = _canvas(theme)
    figure.subplots_adjust(**_MARGINS)
    groups = _pooled_labels(behavior.histograms)
    outlines = []
    for group, color, style in zip(groups, theme.labels, _STYLES, strict=False):
        # A log axis has no zero: empty bins rest on its floor, below one sample.
        heights = np.maximum(np.array(group.counts, dtype=float), _FLOOR)
        axes.stairs(heights, BIN_EDGES, baseline=_FLOOR, fill=True, color=color, alpha=0.16)
        outlines.append(
            axes.stairs(heights, BIN_EDGES, baseline=_FLOOR, color=color, linewidth=1.6, ls=style)
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(LogFormatter())
    tallest = max((max(group.counts) for group in groups), default=1)
    axes.set_ylim(_FLOOR, max(tallest, 1) * 2)
    _score_axis(axes, behavior, theme)
    axes.set_ylabel("samples a bin (log scale)")
    names = [
        f"{name} ({count(group.rows)})" for name, group in zip(_names(groups), groups, strict=True)
    ]
    _legend(axes, theme, outlines, names)
    return _png(figure)


@_drawn_once
def threshold_curve(behavior: BehaviorReport, theme: Theme) -> bytes:
    """PNG: the share of samples that another threshold would drop, of all and of each label."""
    figure, axes = _canvas(theme)
    figure.subplots_adjust(**_MARGINS)
    curves = _curves(behavior)
    colors, styles = (theme.text, *theme.labels), ("-", *_STYLES)
    lines = []
    for curve, color, style in zip(curves, colors, styles, strict=False):
        lines += axes.plot(BIN_EDGES, curve.shares, color=color, linewidth=1.8, linestyle=style)
    axes.set_ylim(-0.02, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _score_axis(axes, behavior, theme)
    axes.set_xlabel(f"threshold on behavior {_plain(behavior.name)}")
    axes.set_ylabel("dropped by such a rule")
    _legend(axes, theme, lines, _names(curves))
    return _png(figure)


def label_key(behavior: BehaviorReport) -> str:
    """Which labels the stand-ins in the pictures of a behavior are; empty without any."""
    stand_ins = _stand_ins(_pooled_labels(behavior.histograms))
    if not stand_ins:
        return ""
    told = "; ".join(f"{stand_in} is {name}" for name, stand_in in stand_ins.items())
    return f"In the pictures, whose font lacks their letters: {told}."


@_drawn_once
def funnel(rows: tuple[FunnelRow, ...], theme: Theme) -> bytes:
    """PNG: rows of each shard that were kept, dropped and quarantined; largest shards first."""
    figure, axes = _canvas(theme)
    # Names of shards may be long.
    figure.set_layout_engine("constrained")
    shown = _pooled_shards(rows)
    places = np.arange(len(shown))
    left = np.zeros(len(shown))
    parts = (
        ("kept", theme.kept, [row.kept for row in shown]),
        ("dropped", theme.dropped, [row.dropped for row in shown]),
        ("quarantined", theme.quarantined, [row.quarantined or 0 for row in shown]),
    )
    bars = []
    for _, color, widths in parts:
        bars.append(axes.barh(places, widths, left=left, color=color, height=0.72))
        left += np.array(widths)
    for place, row, end in zip(places, shown, left, strict=True):
        text = f"  {percent(row.dropped_share)} dropped"
        axes.text(end, place, text, va="center", color=theme.text, fontsize=8)
    axes.set_yticks(places, [_plain(label(row.name)) for row in shown], fontsize=8)
    axes.set_xlim(0, max(left.max(initial=0), 1) * 1.16)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("rows")
    place_above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
    _legend(axes, theme, bars, [name for name, _, _ in parts], **place_above)
    return _png(figure)


def _canvas(theme: Theme) -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, 4.2), dpi=100, facecolor=theme.background)
    axes = figure.add_subplot()
    axes.set_facecolor(theme.background)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.faint)
    axes.tick_params(colors=theme.text, which="both", labelsize=9)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    axes.grid(color=theme.faint, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _score_axis(axes: Any, behavior: BehaviorReport, theme: Theme) -> None:
    """Show the scores that occur and the threshold; samples and threshold lie in [-1, 1]."""
    threshold = behavior.rule.threshold
    ends = [threshold, *(end for end in (behavior.lowest, behavior.highest) if end is not None)]
    axes.set_xlim(max(min(ends) - 0.06, -1.02), min(max(ends) + 0.06, 1.02))
    axes.axvline(threshold, color=theme.text, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.annotate(
        f"threshold {threshold:.3f}",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(2, 3),
        color=theme.text,
        fontsize=9,
        ha="center",
    )
    axes.set_xlabel(f"score for behavior {_plain(behavior.name)}")


def _legend(
    axes: Any, theme: Theme, handles: Sequence[Any], names: Sequence[str], **placing: Any
) -> None:
    axes.legend(
        handles,
        names,
        fontsize=9,
        labelcolor=theme.text,
        facecolor=theme.background,
        edgecolor=theme.faint,
        framealpha=0.9,
        **placing,
    )


def _names(labelled: Sequence[LabelHistogram | ThresholdCurve]) -> list[str]:
    """The labels as the pictures write them."""
    stand_ins = _stand_ins(labelled)
    names = (label(each.label) for each in labelled)
    return [_plain(stand_ins.get(name, name)) for name in names]


def _stand_ins(labelled: Sequence[LabelHistogram | ThresholdCurve]) -> dict[str, str]:
    """What is written for the labels that the font cannot write, by label: "label 1", "label 2" and
    so on, but for names that other labels have."""
    names = [label(each.label) for each in labelled]
    numbered = (f"label {number}" for number in itertools.count(1))
    free = (stand_in for stand_in in numbered if stand_in not in names)
    return dict(zip((name for name in names if not _writable(name)), free, strict=False))


def _writable(name: str) -> bool:
    """The pictures' font has every character that is shown of the name."""
    font = get_font(findfont(FontProperties()))
    return set(map(ord, _plain(name))) <= font.get_charmap().keys()


def _pooled_labels(histograms: Sequence[LabelHistogram]) -> list[LabelHistogram]:
    """At most MAX_LABELS labels, the largest; the smaller ones are added up."""
    largest = sorted(histograms, key=lambda part: (part.label == OTHERS, -part.rows))
    if len(largest) <= MAX_LABELS:
        return list(histograms)
    rest = largest[MAX_LABELS - 1 :]
    counts = tuple(np.sum([part.counts for part in rest], axis=0).tolist())
    name = "all other labels" if rest[-1].label == OTHERS else f"{len(rest)} other labels"
    pool = LabelHistogram(name, counts, sum(part.beyond for part in rest))
    return [*largest[: MAX_LABELS - 1], pool]


def _curves(behavior: BehaviorReport) -> list[ThresholdCurve]:
    """The curve of all samples, then those of the labels that the histogram shows too."""
    pooled = replace(behavior, histograms=tuple(_pooled_labels(behavior.histograms)))
    return threshold_curves(pooled)


def _pooled_shards(rows: Sequence[FunnelRow]) -> list[FunnelRow]:
    largest = sorted(rows, key=lambda row: -row.rows_in)
    if len(largest) <= MAX_SHARDS:
        return largest
    rest = largest[MAX_SHARDS - 1 :]
    pool = FunnelRow(
        f"{len(rest)} other shards",
        sum(row.kept for row in rest),
        sum(row.dropped for row in rest),
        sum(row.quarantined or 0 for row in rest),
    )
    return [*largest[: MAX_SHARDS - 1], pool]


def _plain(text: str) -> str:
    """A name as matplotlib shows it letter by letter: no math, no hidden legend entry, one line."""
    line = " ".join(text.split()).replace("$", r"\$")
    short = line if len(line) <= 40 else line[:39] + "…"
    return f" {short}" if short.startswith("_") else short


def _png(figure: Figure) -> bytes:
    """The figure with a palette of 256 colors, which takes a third of the space."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    pixels.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
