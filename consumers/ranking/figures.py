"""The report's plots, as SVG text."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from consumers.ranking.lift import Comparison

# The same input gives the same bytes: no random ids, text kept as text.
matplotlib.rcParams.update({"svg.hashsalt": "vitrine", "svg.fonttype": "none", "font.family": "sans-serif"})

INK, ACCENT, MUTED = "#1f2933", "#0b7a75", "#9aa5b1"


def forest(comparisons: Sequence[Comparison], labels: Sequence[str]) -> str:
    """Each comparison's lift as a point with its interval, the first at the top."""
    figure = Figure(figsize=(7.2, 0.9 + 0.42 * len(comparisons)), layout="constrained")
    axes = figure.subplots()
    for row, comparison in enumerate(comparisons):
        low, high = comparison.ci95
        sure = low > 0 or high < 0
        axes.plot([low, high], [row, row], color=ACCENT if sure else MUTED, linewidth=3, solid_capstyle="round")
        axes.plot(comparison.lift, row, "o", color=ACCENT if sure else MUTED, markersize=8)
        axes.annotate(
            f"{comparison.lift:+.4f}",
            (comparison.lift, row),
            (0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(comparisons)), list(labels))
    axes.set_ylim(len(comparisons) - 0.4, -0.7)
    axes.set_xlabel(f"{comparisons[0].metric.upper()} with the features - AUC of the baseline, 95% interval")
    return _svg(figure, axes)


def reliability(clicked: NDArray[np.integer], scores: dict[str, NDArray[np.floating]], bins: int = 10) -> str:
    """Click rate against predicted probability, in bins of equally many rows."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    top = 0.0
    for (name, values), colour in zip(scores.items(), (MUTED, ACCENT), strict=True):
        parts = np.array_split(np.argsort(values, kind="stable"), bins)
        predicted = [float(values[part].mean()) for part in parts]
        happened = [float(clicked[part].mean()) for part in parts]
        top = max(top, *predicted, *happened)
        axes.plot(predicted, happened, "o-", color=colour, label=name, markersize=5)
    axes.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("predicted click probability")
    axes.set_ylabel("clicked")
    axes.legend(frameon=False)
    return _svg(figure, axes)


def _svg(figure: Figure, axes: matplotlib.axes.Axes) -> str:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
