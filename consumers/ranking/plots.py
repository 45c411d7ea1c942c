"""The plots of the HTML report. Each function returns an SVG element as text, the same for the same input."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from consumers.ranking.lift import Comparison
from consumers.ranking.result import AucStep, LearningCurvePoint

# A fixed salt makes the ids, and so the bytes, the same for the same input. Text stays text.
# A name with two dollar signs is no formula.
matplotlib.rcParams.update(
    {"svg.hashsalt": "vitrine", "svg.fonttype": "none", "font.family": "sans-serif", "text.parse_math": False}
)

INK, ACCENT, MUTED, LOSS, CONTENT = "#1f2933", "#0b7a75", "#9aa5b1", "#b44d12", "#2f6690"
"""Green (ACCENT) is for gains only; what comes from content is blue (CONTENT)."""
EFFECT_COLOURS = {"gain": ACCENT, "loss": LOSS, "": MUTED}
"""Colour of a comparison by its `effect`."""


def draw_forest(comparisons: Mapping[str, Mapping[str, Comparison]]) -> str:
    """Draw each lift as a point with its interval, one panel for each metric, the first row at the top.

    Gains are green, losses orange, and lifts whose interval has zero in it grey. A NaN interval is not drawn.

    Args:
        comparisons: label of a row to its comparisons by metric: `auc`, and `gauc` in a second panel if a row has it.

    Returns:
        An SVG element as text.
    """
    metrics = [name for name in ("auc", "gauc") if any(name in row for row in comparisons.values())]
    figure = Figure(figsize=(8.4, 0.9 + 0.42 * len(comparisons)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for metric, axes in zip(metrics, panels, strict=True):
        for row, by_metric in enumerate(comparisons.values()):
            if comparison := by_metric.get(metric):
                colour = EFFECT_COLOURS[comparison.effect]
                axes.plot(comparison.interval, [row, row], color=colour, linewidth=2, solid_capstyle="round")
                axes.plot(comparison.lift, row, "o", color=colour, markersize=7)
                _annotate(axes, f"{comparison.lift:+.4f}", (comparison.lift, row), (0, 7), ha="center")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(comparisons)), list(comparisons))
        axes.set_ylim(len(comparisons) - 0.4, -0.7)
        axes.set_xlabel(f"difference in {metric.upper()}, 95%")
        axes.locator_params(axis="x", nbins=5)
    return _svg(figure, *panels)


def draw_reliability(clicked: NDArray[np.integer], scores: dict[str, NDArray[np.floating]], bins: int = 10) -> str:
    """Draw the click rate against the mean predicted probability, in bins of equally many rows (or one more).

    Args:
        clicked: 0 or 1 [n].
        scores: names of two rankers to their click probabilities [n]; the first is grey, the second coloured.
        bins: number of bins; at most n.

    Returns:
        An SVG element as text.

    Raises:
        ValueError: there are not two rankers.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    top = 0.0
    for (name, values), colour in zip(scores.items(), (MUTED, CONTENT), strict=True):
        parts = np.array_split(np.argsort(values, kind="stable"), bins)
        predicted = [float(values[part].mean()) for part in parts]
        observed = [float(clicked[part].mean()) for part in parts]
        top = max(top, *predicted, *observed)
        axes.plot(predicted, observed, "o-", color=colour, label=name, markersize=5)
    axes.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("predicted click probability")
    axes.set_ylabel("clicked")
    axes.legend(frameon=False)
    return _svg(figure, axes)


def draw_waterfall(steps: Sequence[AucStep], effect: str) -> str:
    """Draw the AUC that each step adds to the one before it, the first at the top; its GAUC is written beside it.

    Args:
        steps: the steps in their order, at least one. The first has no bar, as there is none before it; the bar of the
            second has the colour of `effect`, the others are grey.
        effect: `Comparison.effect` of the second step against the first.

    Returns:
        An SVG element as text.
    """
    figure = Figure(figsize=(7.2, 0.9 + 0.42 * len(steps)), layout="constrained")
    axes = figure.subplots()
    for row, (step, before) in enumerate(zip(steps, [steps[0], *steps[:-1]], strict=True)):
        gain, gauc_gain = step.auc - before.auc, step.gauc - before.gauc
        axes.barh(row, gain, left=before.auc, height=0.55, color=EFFECT_COLOURS[effect] if row == 1 else MUTED)
        axes.plot(step.auc, row, "|", color=INK, markersize=14)
        label = f"{step.auc:.4f}"
        if row:
            label += f"  ({gain:+.4f}; GAUC {gauc_gain:+.4f})"
        _annotate(axes, label, (max(step.auc, before.auc), row), (6, 0), va="center")
    low, high = min(step.auc for step in steps), max(step.auc for step in steps)
    axes.set_xlim(low - 0.03 * (high - low), high + 0.5 * (high - low))
    axes.set_yticks(range(len(steps)), [step.name for step in steps])
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xlabel("AUC on the test days")
    return _svg(figure, axes)


def draw_learning_curve(points: Sequence[LearningCurvePoint]) -> str:
    """Draw the AUC of the baseline and of all features against the number of training rows, on a logarithmic axis.

    The lift is written above each point of all features, in AUC and in GAUC.

    Args:
        points: the points, in ascending number of rows; lines join them in this order.

    Returns:
        An SVG element as text.
    """
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = [point.rows for point in points]
    axes.plot(rows, [point.base for point in points], "o-", color=MUTED, label="tabular")
    axes.plot(rows, [point.with_features for point in points], "o-", color=CONTENT, label="all features")
    for point in points:
        label = f"{point.lift:+.4f}\nGAUC {point.gauc_lift:+.4f}"
        _annotate(axes, label, (point.rows, point.with_features), (0, 7), ha="center")
    axes.set_xscale("log")
    axes.set_xticks(rows, [f"{count / 1000:,.0f}k" for count in rows])
    axes.minorticks_off()
    axes.margins(x=0.15, y=0.25)
    axes.set_xlabel("impressions trained on")
    axes.set_ylabel("AUC")
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure, axes)


def draw_importance(features: Sequence[tuple[str, str, float]]) -> str:
    """Draw features by their share of the gain, the first at the top; the baseline's in grey.

    Args:
        features: (name, group, share) of each, with the share from 0 to 1; drawn in this order. The baseline's have the
            group `tabular`.

    Returns:
        An SVG element as text.
    """
    figure = Figure(figsize=(7.2, 0.7 + 0.27 * len(features)), layout="constrained")
    axes = figure.subplots()
    for row, (_, group, share) in enumerate(features):
        axes.barh(row, 100 * share, height=0.62, color=MUTED if group == "tabular" else CONTENT)
        _annotate(axes, f"{100 * share:.1f}%", (100 * share, row), (4, 0), va="center")
    axes.set_yticks(range(len(features)), [name for name, _, _ in features], fontsize=8)
    axes.set_ylim(len(features) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel("share of the loss reduction of all splits, %")
    return _svg(figure, axes)


def _annotate(axes: Any, text: str, position: tuple[float, float], offset: tuple[float, float], **more: Any) -> None:
    """Write a small text at a position, moved by an offset in points."""
    axes.annotate(text, position, offset, textcoords="offset points", fontsize=8, color=INK, **more)


def _svg(figure: Figure, *panels: Any) -> str:
    """The figure as an SVG element, without an XML header, after the frames of its panels are removed."""
    for axes in panels:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, colors=INK)
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, so the reader's browser needs the font of a category's name, not this machine.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
