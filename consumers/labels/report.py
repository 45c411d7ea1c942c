"""The report of `consume labels score`: quality of the groups, week by week, from judged pairs."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.labels.changes import find_worse
from consumers.labels.estimates import ShareEstimate, estimate_share
from consumers.labels.judging import read_newest_labels
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.evaluation.average_precision import compute_average_precision
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, PAIR_LABEL, PRODUCT_ID, TIMESTAMP

Bools = NDArray[np.bool_]

ALL = "(all)"


@dataclass(frozen=True)
class CategoryScore:
    """Figures of a category in one week."""

    category: str
    precision: ShareEstimate
    """Share of the pairs in one group that are the same product."""
    recall: ShareEstimate
    """Share of the recalled pairs of the same product that are in one group. Others do not count."""
    precision_at_k: ShareEstimate
    """Share of the first `top_k` recalled products of an anchor that are the same product."""
    mean_average_precision: ShareEstimate
    """Mean over anchors with at least one judged pair of the same product."""


@dataclass(frozen=True)
class WeekScore:
    """Figures of one week."""

    week: str
    judged: int
    unsure: int
    kappa: float
    """Cohen's kappa of the first and the repeated answers; NaN without repeats, 1 if all answers are equal."""
    repeats: int
    categories: tuple[CategoryScore, ...]
    """ALL first, then by name."""


@dataclass(frozen=True)
class LabelReport:
    """The weeks in the order of their names, and which categories got worse in the last one."""

    top_k: int
    weeks: tuple[WeekScore, ...]
    worse: dict[str, float]
    """Corrected p-value of each category whose precision fell significantly from the last week but one to the last."""

    def __str__(self) -> str:
        lines = []
        for week in self.weeks:
            agreement = f", kappa {week.kappa:.2f} of {week.repeats:,} repeats" if week.repeats else ""
            lines.append(f"{week.week}: {week.judged:,} judged, {week.unsure:,} of them unsure{agreement}")
            for score in week.categories:
                lines.append(
                    f"  {score.category}: precision {score.precision}; recall {score.recall}; "
                    f"precision@{self.top_k} {score.precision_at_k}; mAP {score.mean_average_precision}"
                )
        if len(self.weeks) > 1:
            named = ", ".join(f"{name} (p = {p:.4f})" for name, p in self.worse.items())
            lines.append(f"worse than the week before: {named or 'no category'}")
        return "\n".join(lines)


def import_labels(settings: Settings, rows: pa.Table, now: datetime) -> int:
    """Add judged pairs to the table `pair_label` and return how many were new or changed.

    Args:
        settings: the deployment.
        rows: of `read_judged`.
        now: the created timestamp, with a time zone.

    Raises:
        InvalidInputError: a product is not in the catalogue; nothing is written.
    """
    known = delta.read(settings.table(schema.CATALOGUE_TABLE), [PRODUCT_ID])[PRODUCT_ID]
    for name in ("product_id_l", "product_id_r"):
        unknown = rows.filter(pc.invert(pc.is_in(rows[name], value_set=pc.unique(known))))
        if len(unknown):
            raise InvalidInputError(
                f"pair {unknown['pair_id'][0]}: {name} {unknown[name][0]} is not in the catalogue, and so are "
                f"{len(unknown) - 1:,} more; remove these rows"
            )
    path = settings.table(schema.PAIR_LABEL_TABLE)
    stored = {_identify(row) for row in _read_labels(settings).to_pylist()} if delta.exists(path) else set()
    new = rows.filter(pa.array([_identify(row) not in stored for row in rows.to_pylist()], pa.bool_()))
    if len(new):
        times = pa.repeat(pa.scalar(now, TIMESTAMP), len(new))
        delta.append(path, new.set_column(new.column_names.index(CREATED_TIMESTAMP), CREATED_TIMESTAMP, times))
    return len(new)


def score_labels(settings: Settings, *, top_k: int) -> LabelReport:
    """Return the figures of all weeks, in the alphabetical order of their names.

    Raises:
        NotFoundError: nothing was imported yet.
    """
    labels = (
        _read_labels(settings) if delta.exists(settings.table(schema.PAIR_LABEL_TABLE)) else PAIR_LABEL.empty_table()
    )
    if not len(labels):
        raise NotFoundError("no judged pairs; run `consume labels import FILE`, or judge a sample at /labels")
    return build_report(labels, top_k=top_k)


def build_report(labels: pa.Table, *, top_k: int) -> LabelReport:
    """Return the figures of judged pairs, rows of schema.PAIR_LABEL."""
    weeks = sorted(set(labels["week"].to_pylist()))
    by_week = {week: labels.filter(pc.field("week") == week) for week in weeks}
    worse: dict[str, float] = {}
    if len(weeks) > 1:
        before, after = (_select_grouped(by_week[week]) for week in weeks[-2:])
        worse = find_worse(before, after)
    return LabelReport(top_k, tuple(_score_week(week, by_week[week], top_k) for week in weeks), worse)


def _score_week(week: str, rows: pa.Table, top_k: int) -> WeekScore:
    first = rows.filter(pc.invert(rows["is_repeat"]))
    sure = first.filter(pc.field("label") != "unsure")
    names = [ALL, *sorted(set(sure["category"].to_pylist()))]
    kappa, repeats = _measure_agreement(rows)
    categories = tuple(
        _score_category(name, sure if name == ALL else sure.filter(pc.field("category") == name), top_k)
        for name in names
    )
    return WeekScore(week, len(rows), len(rows.filter(pc.field("label") == "unsure")), kappa, repeats, categories)


def _score_category(name: str, rows: pa.Table, top_k: int) -> CategoryScore:
    is_same = np.array(rows["label"].to_pylist(), object) == "same"
    in_one_group = np.array(rows["in_one_group"].to_pylist(), bool)
    rank, weight = rows["rank"].to_numpy(), 1 / rows["inclusion_probability"].to_numpy()
    anchor = rows["product_id_l"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)

    def estimate(hit: Bools, chosen: Bools) -> ShareEstimate:
        return estimate_share(hit[chosen], weight[chosen], anchor[chosen])

    of_anchor = [np.flatnonzero(anchor == one) for one in np.unique(anchor)]
    # Products that were not judged are taken out of the list (Sakai, "Alternatives to bpref", 2007).
    average = np.array(
        [
            compute_average_precision(-rank[rows], is_same[rows], int(is_same[rows].sum()), len(rows))
            for rows in of_anchor
        ]
    )
    # The weight of an anchor is that of its pair with the largest probability, which is drawn whenever the anchor is.
    anchor_weight = np.array([weight[rows].min() for rows in of_anchor])
    has_same = ~np.isnan(average)
    return CategoryScore(
        name,
        estimate(is_same, in_one_group),
        estimate(in_one_group, is_same),
        estimate(is_same, rank <= top_k),
        estimate_share(average[has_same], anchor_weight[has_same], np.arange(int(has_same.sum()))),
    )


def _select_grouped(rows: pa.Table) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """Return hits, weights and anchors of the judged pairs of one group, by category; a product has one number."""
    sure = rows.filter((pc.field("label") != "unsure") & pc.field("in_one_group") & ~pc.field("is_repeat"))
    selected = {}
    for name in sorted(set(sure["category"].to_pylist())):
        part = sure.filter(pc.field("category") == name)
        hit = (np.array(part["label"].to_pylist(), object) == "same").astype(np.float64)
        anchor = np.array([hash_name(one) for one in part["product_id_l"].to_pylist()], np.int64)
        selected[name] = hit, 1 / part["inclusion_probability"].to_numpy(), anchor
    return selected


def hash_name(name: str) -> int:
    """Return a number for a product that is the same in all weeks."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest())


def _measure_agreement(rows: pa.Table) -> tuple[float, int]:
    """Return Cohen's kappa of first and repeated answers, and the number of repeats."""
    from sklearn.metrics import cohen_kappa_score

    first: dict[tuple[str, str], str] = {}
    again: list[tuple[tuple[str, str], str]] = []
    for row in rows.to_pylist():
        key = row["product_id_l"], row["product_id_r"]
        if row["is_repeat"]:
            again.append((key[::-1], row["label"]))
        else:
            first.setdefault(key, row["label"])
    pairs = [(first[key], label) for key, label in again if key in first]
    if not pairs:
        return float("nan"), 0
    one, other = zip(*pairs, strict=True)
    if len({*one, *other}) == 1:
        return 1.0, len(pairs)
    return float(cohen_kappa_score(one, other)), len(pairs)


def _read_labels(settings: Settings) -> pa.Table:
    """Return the newest row of each judged pair; pairs of a stored sample that are not judged yet are left out."""
    rows = read_newest_labels(settings)
    return rows.filter(rows["label"].is_valid())


def _identify(row: dict) -> tuple:
    return tuple(value for name, value in row.items() if name != CREATED_TIMESTAMP)
