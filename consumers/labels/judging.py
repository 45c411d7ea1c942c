"""Judging the pairs of a stored sample, by several people at once.

A sample is stored as rows without a label in the table `pair_label`, and an answer is a further row of its pair: of the
rows of a pair the one created last counts. So an answer is where `consume labels import` would put it, with the
inclusion probability and everything else that the sample knows of the pair, and no answer is ever overwritten. An
answer that is taken back is a row without a label.

A pair that was shown to one labeller is not shown to another for a while. In which order pairs are asked depends on
their ids only, which tell nothing about a pair.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.offline import delta, retention, versions
from feature_repo.pairs.labels import PAIR_LABELS
from feature_repo.schema import CREATED_TIMESTAMP, PAIR_LABEL

LEASE = timedelta(minutes=10)
"""Time for which a pair that was shown to a labeller is not shown to another."""
COMPACT_COMMITS = 200
"""Answers after which the small files that they made are merged."""
MAX_LABELLER_LENGTH = 60
"""Longest name of a labeller, in characters."""

Row = dict[str, Any]


@dataclass(frozen=True)
class SampleProgress:
    """How far the judging of a sample is."""

    name: str
    pairs: int
    judged: int
    by_labeller: dict[str, int]
    """Judged pairs of each labeller, most first."""


def store_sample(settings: Settings, sample: pa.Table, now: datetime) -> int:
    """Store the pairs of a sample that are not stored yet, and return how many they are.

    Args:
        settings: the deployment.
        sample: of schema.PAIR_LABEL, without labels.
        now: the created timestamp, with a time zone.
    """
    path = settings.table(schema.PAIR_LABEL_TABLE)
    known = set(delta.read(path, ["pair_id"])["pair_id"].to_pylist()) if delta.exists(path) else set()
    new = sample.filter(pa.array([one not in known for one in sample["pair_id"].to_pylist()], pa.bool_()))
    if len(new):
        times = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(new))
        delta.append(path, new.set_column(new.column_names.index(CREATED_TIMESTAMP), CREATED_TIMESTAMP, times))
    return len(new)


def check_labeller(name: str) -> str:
    """Return a labeller's name without surrounding blanks.

    Raises:
        InvalidInputError: it is empty, too long, or has characters that cannot be printed.
    """
    name = " ".join(name.split())
    if not name or len(name) > MAX_LABELLER_LENGTH or not name.isprintable():
        raise InvalidInputError(
            f"{name[:80]!r} is not a name of a labeller; expected 1 to {MAX_LABELLER_LENGTH} printable characters"
        )
    return name


class JudgingBook:
    """The stored pairs with their answers. Safe to share between threads.

    Other processes may add samples and answers; they are seen at the next call.

    Args:
        settings: the deployment.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.table(schema.PAIR_LABEL_TABLE)
        self._lock = threading.Lock()
        self._version: int | None = None
        self._rows: dict[str, Row] = {}
        self._leases: dict[str, tuple[str, datetime]] = {}
        self._commits = 0

    def list_samples(self) -> list[SampleProgress]:
        """Return the progress of every sample, the one with the last name first."""
        with self._lock:
            self._refresh()
            samples: dict[str, list[Row]] = {}
            for row in self._rows.values():
                samples.setdefault(row["week"], []).append(row)
            return [_measure_progress(name, samples[name]) for name in sorted(samples, reverse=True)]

    def draw_pairs(
        self, sample: str, labeller: str, count: int, now: datetime, *, without: Sequence[str] = ()
    ) -> tuple[list[Row], SampleProgress]:
        """Return the next pairs for a labeller, and the progress of the sample.

        They are lent to this labeller for LEASE. Pairs that another labeller has at the moment are left out.

        Args:
            sample: name of the sample.
            labeller: who judges.
            count: most pairs to return.
            now: the time, with a time zone.
            without: ids of pairs that the labeller has already.

        Raises:
            NotFoundError: there is no such sample.
        """
        with self._lock:
            self._refresh()
            rows = self._list_rows(sample)
            lent = {one for one, (who, until) in self._leases.items() if who != labeller and until > now}
            open_rows = [row for row in rows if row["label"] is None and row["pair_id"] not in (*lent, *without)]
            drawn = open_rows[:count]
            self._leases |= {row["pair_id"]: (labeller, now + LEASE) for row in drawn}
            return drawn, _measure_progress(sample, rows)

    def record_answer(self, pair_id: str, label: str, labeller: str, now: datetime) -> None:
        """Store an answer. A later answer to the same pair takes its place, and both stay in the table.

        Args:
            pair_id: of a stored pair.
            label: one of PAIR_LABELS.
            labeller: who judged.
            now: the time, with a time zone.

        Raises:
            InvalidInputError: there is no such label.
            NotFoundError: there is no such pair.
            ConflictError: others wrote to the table too often meanwhile; the answer is not stored.
        """
        if label not in PAIR_LABELS:
            raise InvalidInputError(f"the answer is {label[:40]!r}; expected one of {', '.join(PAIR_LABELS)}")
        with self._lock:
            self._refresh()
            if pair_id not in self._rows:
                raise NotFoundError(f"no stored sample has the pair {pair_id[:40]!r}; load the page again")
            self._append(self._rows[pair_id] | {"label": label, "labeller": labeller, "labelled_at": now}, now)

    def take_back(self, sample: str, labeller: str, now: datetime) -> Row:
        """Take back the last answer of a labeller in a sample, and return its pair, without the answer.

        Raises:
            NotFoundError: the labeller has no answer in the sample.
        """
        with self._lock:
            self._refresh()
            own = [row for row in self._list_rows(sample) if row["label"] is not None and row["labeller"] == labeller]
            if not own:
                raise NotFoundError(f"{labeller} has no answer in {sample} that could be taken back")
            last = max(own, key=lambda row: row["labelled_at"])
            row = last | {"label": None, "labeller": None, "labelled_at": None}
            self._append(row, now)
            self._leases[row["pair_id"]] = labeller, now + LEASE
            return row

    def _list_rows(self, sample: str) -> list[Row]:
        rows = sorted((row for row in self._rows.values() if row["week"] == sample), key=lambda row: row["pair_id"])
        if not rows:
            raise NotFoundError(f"there is no sample {sample[:40]!r} to judge; run: consume labels sample --page")
        return rows

    def _append(self, row: Row, now: datetime) -> None:
        """Store a row of a pair as the newest one."""
        before = self._rows[row["pair_id"]][CREATED_TIMESTAMP]
        row = row | {CREATED_TIMESTAMP: max(now, before + timedelta(microseconds=1))}  # also if a clock was set back
        version = delta.append(self._path, pa.Table.from_pylist([row], PAIR_LABEL))
        if self._version is not None and version == self._version + 1:
            self._version = version
            self._rows[row["pair_id"]] = row
        self._commits += 1
        if self._commits % COMPACT_COMMITS == 0:
            with suppress(ConflictError):  # another process writes; the files are merged another time
                retention.compact(self._path)

    def _refresh(self) -> None:
        """Read the table again if another process has written to it."""
        version = delta.latest_version(self._path)
        if version == self._version:
            return
        self._version = version
        rows = [] if version is None else read_newest_labels(self._settings).to_pylist()
        self._rows = {row["pair_id"]: row for row in rows}


def read_newest_labels(settings: Settings) -> pa.Table:
    """Return the newest row of each pair, schema.PAIR_LABEL; its label is null if the pair is not judged."""
    return versions.read_newest(
        delta.open_dataset(settings.table(schema.PAIR_LABEL_TABLE)),
        PAIR_LABEL.names,
        None,
        keys=["pair_id"],
        event_timestamp=CREATED_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )


def _measure_progress(name: str, rows: Iterable[Row]) -> SampleProgress:
    rows = list(rows)
    judged = [row for row in rows if row["label"] is not None]
    counts = Counter(row["labeller"] or "(not named)" for row in judged)
    return SampleProgress(name, len(rows), len(judged), dict(counts.most_common()))
