"""Sentences about a measurement that the terminal and the HTML report share."""

import numpy as np

from consumers.ranking.plan import PLACEBO
from consumers.ranking.result import LiftResult
from consumers.ranking.verdict import Verdict

CATALOGUE_COLUMNS = ("category", "brand", "price")
"""Columns of the catalogue that the baseline has where that view is joined."""


def describe_screening(result: LiftResult) -> str:
    """Return a sentence with the groups that "all features" stands for, those left out, and those of the placebo."""
    taken = result.scores.taken
    left_out = [name for name in result.verdicts if name not in taken]
    sentence = f"All features: {', '.join(taken) or 'none'}"
    if left_out:
        sentence += f"; left out by the screening: {', '.join(left_out)}"
    if permutations := len(result.scores.main.get(PLACEBO, [])):
        permuted = sum(result.scores.permuted_taken.values())
        sentence += f"; {permuted} of the placebo's {permutations * len(result.verdicts)} permuted groups passed"
    return f"{sentence}."


def describe_baseline(result: LiftResult) -> str:
    """Return a sentence with the columns of the catalogue and of the log that every ranker has."""
    catalogue = CATALOGUE_COLUMNS if "price" in result.scores.group_of else ()
    return (
        "Columns of the baseline, beside ids, times and clicks: "
        f"{', '.join(catalogue) or 'none'} of the catalogue; {', '.join(result.baseline_columns) or 'none'} of the log."
    )


def format_unused_columns(result: LiftResult) -> str | None:
    """Return a line with the names and types of the context columns that no ranker used; None if all were used."""
    return (
        f"Not used, because they hold neither numbers nor text: {', '.join(result.unused)}" if result.unused else None
    )


def format_power(verdict: Verdict) -> str:
    """Return the power of a verdict in percent, or a dash where there is none."""
    return f"{verdict.power:.0%}" if np.isfinite(verdict.power) else "–"
