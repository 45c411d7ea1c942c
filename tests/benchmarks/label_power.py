"""How often a fall of precision in one category is named, and how often a false alarm is raised.

    python -m tests.benchmarks.label_power

Each simulation is two weeks of judged pairs in ten categories. Every category has one judged pair of one group for each
of `--labels` anchors a week; `--shared` of them are those of the week before. Precision is 0.95. From week to week 10%
of the anchors get another pair. In one category precision falls by 5 points: so many of the pairs that were right are
replaced by wrong ones. Printed is the share of simulations in which this category is named, with an interval, and the
share in which any category is named although none fell.
"""

from typing import Annotated

import numpy as np
import typer

from consumers.labels.changes import find_worse
from consumers.labels.estimates import wilson_interval

CATEGORIES = 10
PRECISION = 0.95
CHURN = 0.1
"""Share of an anchor's pairs that are other ones a week later, as right as the others on average."""

Week = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def simulate(rng: np.random.Generator, labels: int, shared_share: float, fall: float) -> tuple[Week, Week]:
    """Return the judged pairs of two weeks; precision falls in the first category."""
    before: Week = {}
    after: Week = {}
    for category in range(CATEGORIES):
        hit = (rng.random(labels) < PRECISION).astype(float)
        anchor = np.arange(labels)
        shared = rng.random(labels) < shared_share
        precision = PRECISION - fall * (category == 0)
        later = np.where(rng.random(labels) < CHURN, rng.random(labels) < PRECISION, hit)
        later = np.where(rng.random(labels) < precision / PRECISION, later, 0.0)
        later = np.where(shared, later, rng.random(labels) < precision).astype(float)
        name = f"category {category}"
        before[name] = hit, np.ones(labels), anchor
        after[name] = later, np.ones(labels), np.where(shared, anchor, labels + anchor)
    return before, after


def measure(labels: int, shared: float, simulations: int, seed: int) -> tuple[int, int]:
    """Return in how many simulations the category that fell is named, and in how many any is if none fell."""
    named = alarms = 0
    for number in range(simulations):
        rng = np.random.default_rng([seed, number])
        named += "category 0" in find_worse(*simulate(rng, labels, shared, 0.05))
        alarms += bool(find_worse(*simulate(rng, labels, shared, 0.0)))
    return named, alarms


def main(
    labels: Annotated[int, typer.Option(help="Judged pairs of a category each week.")] = 300,
    shared: Annotated[float, typer.Option(help="Share of a week's anchors that the week before had too.")] = 0.9,
    simulations: Annotated[int, typer.Option()] = 400,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    counts = measure(labels, shared, simulations, seed)
    for what, count in zip(("the category that fell is named", "an alarm although none fell"), counts, strict=True):
        low, high = wilson_interval(count / simulations, simulations)
        share = f"{count / simulations:.3f} ({low:.3f} to {high:.3f})"
        print(f"{labels} labels a week, {shared:.0%} shared anchors: {what}: {share}")


if __name__ == "__main__":
    typer.run(main)
