"""Messages of clicks to versions of `user_interest`, one click at a time (feature_repo/features/interest.py).

A user's state is that of the newest version offline, read when the user first clicks and kept: the row online has its
vector in float16. What a click says of its product is what was known of it at that moment: of versions offline, and of
those that this run has made and not committed yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import timestamps
from feature_repo.config import Settings
from feature_repo.features import interest
from feature_repo.features.interest import Clicks, UserInterest
from feature_repo.offline import delta, validation
from producers.behaviour import interest_rows
from producers.streaming.source import StreamMessage, describe_failure

MAX_CACHED = 100_000
"""Users and products kept in memory, each; all are forgotten at the next commit when there are more."""
OUT_OF_ORDER = "earlier than the user's newest click: `produce interests` takes it in with the whole log"
FIELDS = ("user_id", "product_id", "event_timestamp")
MISSING = "no user_id, product_id or event_timestamp"
NO_TIME = "event_timestamp is no ISO 8601 with a zone"
FUTURE = f"event_{validation.FUTURE}"
TOO_EARLY = f"event_{validation.TOO_EARLY}"
FIRST = timestamps.datetime_to_ticks(datetime.min, "us")
"""The first moment that Python's calendar has."""

Vector = NDArray[np.float32]
_LABELS = {"child_age_distribution": schema.CHILD_AGES, "child_gender_distribution": schema.CHILD_GENDERS}


@dataclass(frozen=True)
class InterestRows:
    """What came of some clicks."""

    rows: pa.Table
    """schema.USER_INTEREST"""
    known: int
    """Clicks that the users' states have already."""
    refused: tuple[tuple[StreamMessage, str], ...]


@dataclass(frozen=True)
class _Read:
    user: str
    product: str
    time: int
    message: StreamMessage


class InterestUpdater:
    """The states of users who click, of one encoder version.

    Args:
        width: of the encoder's vectors.
    """

    def __init__(self, settings: Settings, encoder_version: str, width: int) -> None:
        self._settings = settings
        self._version = encoder_version
        self._width = width
        self._users: dict[str, UserInterest | None] = {}
        self._products: dict[str, _Versions] = {}
        self._uncommitted: dict[str, list[tuple[str, int, dict[str, Vector]]]] = {}

    def learn(self, tables: Mapping[str, pa.Table]) -> None:
        """Take note of product versions that are not committed yet."""
        for table, names in ((schema.EMBEDDING_TABLE, ["fused_vector"]), (schema.TAGS_TABLE, list(_LABELS))):
            for row in tables[table].to_pylist() if table in tables else ():
                vectors = {name: self._vector(name, row[name]) for name in names}
                said = table, _tick(row[schema.EVENT_TIMESTAMP]), vectors
                self._uncommitted.setdefault(row[schema.PRODUCT_ID], []).append(said)
                if row[schema.PRODUCT_ID] in self._products:
                    self._products[row[schema.PRODUCT_ID]].add(*said)

    def committed(self) -> None:
        """All that was made is offline by now."""
        self._uncommitted.clear()
        if len(self._users) > MAX_CACHED:
            self._users.clear()
        if len(self._products) > MAX_CACHED:
            self._products.clear()

    def make(self, messages: Sequence[StreamMessage], now: datetime) -> InterestRows:
        """A version of the user for each click, in the order of their times; a click that fails is refused alone."""
        refused: list[tuple[StreamMessage, str]] = []
        read = [one for message in messages if (one := _read(message, now, refused)) is not None]
        read.sort(key=lambda one: (one.time, len(one.message.id), one.message.id))
        self._load_users(sorted({one.user for one in read} - self._users.keys()))
        self._load_products(sorted({one.product for one in read} - self._products.keys()))
        rows, known = [schema.USER_INTEREST.empty_table()], 0
        for one in read:
            state = self._users[one.user]
            if state is not None and (one.product, one.time) in zip(state.products, state.times, strict=True):
                known += 1
            elif state is not None and one.time < state.times[0]:
                refused.append((one.message, OUT_OF_ORDER))
            else:
                try:
                    click = self._products[one.product].click(one.time, self._width)
                    after = interest.update_interest(state, one.product, click)
                    rows.append(interest_rows.build_row(one.user, after, self._version, _moment(one.message.arrived)))
                except Exception as error:
                    refused.append((one.message, describe_failure(error)))
                else:
                    self._users[one.user] = after
        return InterestRows(pa.concat_tables(rows), known, tuple(refused))

    def _load_users(self, users: list[str]) -> None:
        self._users |= dict.fromkeys(users)
        path = self._settings.table(schema.INTEREST_TABLE)
        if not users or not delta.exists(path):
            return
        mine = pc.field(schema.USER_ID).isin(users) & (pc.field("encoder_version") == self._version)
        found = delta.read(path, [schema.USER_ID, schema.EVENT_TIMESTAMP, "clicks"], where=mine)
        newest = found.group_by(schema.USER_ID).aggregate([(schema.EVENT_TIMESTAMP, "max")])
        if not len(newest):
            return
        moments = pc.unique(newest[f"{schema.EVENT_TIMESTAMP}_max"])
        for row in delta.read(path, where=mine & pc.field(schema.EVENT_TIMESTAMP).isin(moments)).to_pylist():
            state, before = interest_rows.parse_row(row, self._width), self._users[row[schema.USER_ID]]
            if before is None or (state.times[0], state.clicks) > (before.times[0], before.clicks):
                self._users[row[schema.USER_ID]] = state

    def _load_products(self, products: list[str]) -> None:
        for product in products:
            self._products[product] = _Versions()
        for table, names in ((schema.EMBEDDING_TABLE, ["fused_vector"]), (schema.TAGS_TABLE, list(_LABELS))):
            path = self._settings.table(table)
            if products and delta.exists(path):
                where = pc.field(schema.PRODUCT_ID).isin(products) & (pc.field("encoder_version") == self._version)
                wanted = [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, *names]
                for row in delta.read(path, wanted, where=where).to_pylist():
                    said = {name: self._vector(name, row[name]) for name in names}
                    self._products[row[schema.PRODUCT_ID]].add(table, _tick(row[schema.EVENT_TIMESTAMP]), said)
        for product in products:
            for one in self._uncommitted.get(product, ()):
                self._products[product].add(*one)

    def _vector(self, name: str, value: Any) -> Vector:
        width = len(_LABELS[name]) if name in _LABELS else self._width
        return np.full(width, np.nan, np.float32) if value is None else np.asarray(value, np.float32)


class _Versions:
    """What was known of a product, by table and since when."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, dict[str, Vector]]] = {}

    def add(self, table: str, since: int, said: dict[str, Vector]) -> None:
        self._known.setdefault(table, {})[since] = said

    def click(self, time: int, width: int) -> Clicks:
        """A click at a time, of one user."""
        said = {name: np.full(len(labels), np.nan, np.float32) for name, labels in _LABELS.items()}
        said["fused_vector"] = np.full(width, np.nan, np.float32)
        for versions in self._known.values():
            since = [moment for moment in versions if moment <= time]
            said |= versions[max(since)] if since else {}
        ages, genders = (said[name][None] for name in _LABELS)
        return Clicks(said["fused_vector"][None], ages, genders, np.array([time]))


def _read(message: StreamMessage, now: datetime, refused: list[tuple[StreamMessage, str]]) -> _Read | None:
    try:
        user, product, at = (message.fields.get(name, b"").decode().strip() for name in FIELDS)
        if not (user and product and at):
            refused.append((message, MISSING))
            return None
        moment = datetime.fromisoformat(at)
    except ValueError:
        refused.append((message, NO_TIME))
        return None
    if moment.tzinfo is None:
        refused.append((message, NO_TIME))
    elif moment > now:
        refused.append((message, FUTURE))
    elif _tick(moment) < FIRST:
        refused.append((message, TOO_EARLY))
    else:
        return _Read(user, product, _tick(moment), message)
    return None


def _tick(moment: datetime) -> int:
    return timestamps.datetime_to_ticks(moment, "us")


def _moment(tick: int) -> datetime:
    return pa.scalar(tick, schema.TIMESTAMP).as_py()
