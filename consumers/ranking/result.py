"""What one measurement found: everything that the report, the JSON and the terminal show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.ablation import RankerScores
from consumers.ranking.bootstrap import DelongInterval
from consumers.ranking.costs import GroupCost
from consumers.ranking.lift import Comparison
from consumers.ranking.verdict import Verdict


@dataclass(frozen=True)
class LearningCurvePoint:
    """The AUC of the baseline and of all features at one number of training rows."""

    rows: int
    """The share of the curve times the number of rows before the test, rounded."""
    base: float
    """AUC of the baseline on the test rows, from 0 to 1."""
    with_features: float
    """AUC of all features on the test rows, from 0 to 1."""
    lift: float
    """`with_features` - `base`."""
    ci95_two_way: tuple[float, float]
    """95% interval of the lift, users and products drawn."""
    gauc_lift: float
    """GAUC of all features minus that of the baseline, on the test rows."""


@dataclass(frozen=True)
class AucStep:
    """The AUC of one step on the way from the baseline to the oracle, which knows the true click probabilities."""

    name: str
    """`baseline`, ALL, one of ORACLE_STEPS, CEILING or `oracle`."""
    auc: float
    """AUC on the test rows, from 0 to 1; a mean over training seeds."""
    gauc: float
    """GAUC on the test rows, in the same way."""


@dataclass(frozen=True)
class LiftResult:
    """Everything that the report shows about one measurement."""

    comparisons: Sequence[Comparison]
    """All comparisons: groups on the test days, then rankers and slices on the test days, then groups on the validation
    days."""
    scores: RankerScores
    """Click probabilities from every ranker."""
    clicked: NDArray[np.integer]
    """0 or 1 [test rows]."""
    user: NDArray[np.integer]
    """User codes of the whole log, from 0 [test rows]."""
    validation: np.datetime64
    """First microsecond of the validation, UTC."""
    split: np.datetime64
    """First microsecond of the test, UTC; the validation ends just before it."""
    rows: Mapping[str, int]
    """Number of rows, with the keys of the JSON: `train` (before the test, including the validation), `test`,
    `validation`, `validation_clicks` (the clicked ones), `ladder` (on which the ablations are trained), `unmatched` (in
    no view, but kept) and `refused`."""
    replicates: int
    """Number of bootstrap draws behind each interval."""
    encoder: str | None
    """The encoder version of the joined views; None if none of their rows has one."""
    verdicts: Mapping[str, Verdict]
    """Group of features to whether to keep it."""
    headroom: Sequence[AucStep]
    """From the baseline to the oracle; empty without a truth."""
    curve: Sequence[LearningCurvePoint]
    """Points in ascending number of training rows; without the one of all rows if the main ranker is a DIN."""
    delong: DelongInterval
    """AUC of all features minus that of the baseline, each with its first seed, on the test rows."""
    costs: Sequence[GroupCost] = ()
    """One cost for each group of `verdicts`, in that order; empty if the measurement had no deployment."""
    unused: Sequence[str] = ()
    """Context columns of the log that no ranker used, each as `name (type)`, in the order of the log."""
    context: Mapping[str, str] = field(default_factory=dict)
    """The log's column of each feature `context_N`."""
    group_slices: Sequence[Comparison] = ()
    """Each group, added to the baseline, on each slice of the test rows, in AUC; slice by slice."""
    sections: Mapping[str, object] = field(default_factory=dict)
    """Further top-level entries of the JSON: `proxies`, if vectors of a known encoder were joined."""

    @property
    def baseline_columns(self) -> list[str]:
        """Context columns of the log that the baseline has, in the order of the log."""
        return [column for feature, column in self.context.items() if feature in self.scores.group_of]

    def find(self, name: str, part: str = "all", metric: str = "auc", *, days: str = "test") -> Comparison | None:
        """Return one comparison, or None if it was not made.

        Comparisons of the main kind of ranker are searched, and for single groups those of the trees.

        Args:
            name: the comparison's name, as in `Comparison.name`.
            part: name of the slice; `all` for all rows.
            metric: a key of `metrics.METRICS`.
            days: test or validation.
        """
        wanted = (name, part, metric, days)
        models = (self.scores.model, "truth")
        is_of_group = name.split(" over ")[0].split(", ")[0] in self.verdicts
        return next(
            (
                c
                for c in self.comparisons
                if (c.name, c.slice, c.metric, c.days) == wanted and (c.model in models or is_of_group)
            ),
            None,
        )
