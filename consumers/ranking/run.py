"""One measurement from end to end: the log read, joined and split, rankers trained, differences drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.ranking.impressions import read_impressions
from consumers.ranking.lift import Comparison, Scores, compare, score_all, split_time
from consumers.ranking.slices import slices
from consumers.ranking.tabular import unused_context
from consumers.ranking.training_set import TrainingSet, encoder_version, join
from consumers.ranking.truth import read_truth
from feature_repo.errors import VitrineError
from feature_repo.schema import IMPRESSION_ID, PRODUCT_ID
from feature_repo.settings import Settings
from feature_repo.tables import quarantine

STEP = "lift"
UNMATCHED = "no feature view had anything for its product at that time; row kept"


@dataclass(frozen=True)
class Run:
    """Everything that the report says of one measurement."""

    comparisons: Sequence[Comparison]
    scores: Scores
    clicked: NDArray[np.integer]
    """0/1 of the test rows [test rows]."""
    user: NDArray[np.integer]
    """Users of the test rows [test rows]."""
    split: np.datetime64
    rows: Mapping[str, int]
    """train, test, unmatched and refused: what went in, and what did not."""
    replicates: int
    encoder: str | None
    unused: Sequence[str] = ()
    """Context columns of the log that no ranker saw, each with its type."""

    def find(self, name: str, part: str = "all", metric: str = "auc") -> Comparison | None:
        """One comparison, or None where it was not made."""
        wanted = (name, part, metric)
        return next((c for c in self.comparisons if (c.name, c.slice, c.metric) == wanted), None)


def measure(
    settings: Settings,
    impressions: Path,
    *,
    service: str,
    truth: Path | None,
    test_days: float | None,
    seeds: int,
    replicates: int,
    now: datetime,
    progress: Callable[[str, int, int], None],
) -> Run:
    """Measure what a feature service is worth to a ranker of `impressions`.

    Every impression is trained on, tested on, or in `Run.rows` and the quarantine with its reason.

    Args:
        settings: the deployment.
        impressions: file of schema.IMPRESSIONS and context columns.
        service: name of the Feast feature service.
        truth: a generated shop's truth folder, for the attainable and the oracle.
        test_days: as in `split_time`.
        seeds: how many training seeds.
        replicates: of the bootstrap.
        now: later impressions are refused.
        progress: told of every ranker trained.
    """
    log = read_impressions(impressions, now=now)
    data = join(settings, service, log.table)
    unmatched = _unmatched(data)
    quarantine.add(settings, STEP, [*log.refused, *log.notes, *unmatched], now)
    if len(unmatched) == len(data.impressions):
        raise VitrineError(
            f"{impressions}: none of its products has a feature row at the time it was shown; "
            "is it the log of this catalogue, and are its timestamps right?"
        )
    start = split_time(data, test_days)
    scores = score_all(data, start, range(seeds), read_truth(truth, data) if truth else None, progress)
    test = scores.test
    return Run(
        comparisons=compare(data, scores, slices(data, test), replicates=replicates, seed=0),
        scores=scores,
        clicked=data.clicked[test],
        user=data.user[test],
        split=np.datetime64(start, "us"),
        rows={
            "train": int((~test).sum()),
            "test": int(test.sum()),
            "unmatched": len(unmatched),
            "refused": len(log.refused),
        },
        replicates=replicates,
        encoder=encoder_version(data),
        unused=unused_context(data),
    )


def _unmatched(data: TrainingSet) -> list[quarantine.Refused]:
    """Impressions that no view had anything for: kept, with every feature missing, and named."""
    nothing = np.all([view.row < 0 for view in data.views.values()], axis=0)
    shown = data.impressions.filter(pa.array(nothing)).select([IMPRESSION_ID, PRODUCT_ID])
    return [quarantine.Refused(row[IMPRESSION_ID], PRODUCT_ID, UNMATCHED, row[PRODUCT_ID]) for row in shown.to_pylist()]
