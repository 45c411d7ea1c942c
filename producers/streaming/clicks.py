"""Turns click messages into versions of `user_interest`, one click at a time (feature_repo/features/interest.py).

The state of a user is read from the newest offline version at the user's first click and then kept in memory. The
online row is not used, because its vector is float16. The features of a clicked product are those that were known at
the time of the click, from offline versions and from versions of this run that are not committed yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import timestamp_texts, timestamps
from feature_repo.arrow.text import normalize_id
from feature_repo.config import Settings
from feature_repo.features.interest import Clicks, UserInterest
from feature_repo.offline import delta, validation
from feature_repo.offline.anonymous_users import find_guests
from producers.behaviour import interest_rows
from producers.behaviour.interest_digest import update_interest
from producers.streaming.source import StreamMessage, describe_failure

MAX_CACHED = 100_000
"""Users, and products, that are kept in memory. If there are more users, all users are dropped at the next commit; the
same holds for products."""
OUT_OF_ORDER = "earlier than the user's newest click; `produce interests` includes it when it reads the whole log"
FIELDS = ("user_id", "product_id", "event_timestamp")
MISSING_FIELD = "user_id, product_id or event_timestamp is missing or not UTF-8"
BAD_TIMESTAMP = f"event_timestamp cannot be read or has no time zone; write it as {timestamp_texts.ACCEPTED_FORMS}"
GUEST = "user_id stands for visitors without an account; the click counts for no user"
FUTURE = f"event_{validation.FUTURE}"
TOO_EARLY = f"event_{validation.TOO_EARLY}"
MIN_TIMESTAMP_US = timestamps.datetime_to_ticks(datetime.min.replace(tzinfo=UTC), "us")
"""The earliest timestamp that a Python datetime can hold."""

Vector = NDArray[np.float32]
Rejected = tuple[StreamMessage, str]
"""A message and the reason for its dead letter."""
_DISTRIBUTIONS = ("child_age_distribution", "child_gender_distribution")
_PRODUCT_COLUMNS = {schema.EMBEDDING_TABLE: ["fused_vector"], schema.TAGS_TABLE: list(_DISTRIBUTIONS)}


@dataclass(frozen=True)
class InterestRows:
    """The result of a batch of click messages."""

    rows: pa.Table
    """Rows of schema.USER_INTEREST: the state of a user after each click, in the order of the click timestamps."""
    duplicates: int
    """Clicks that were already among the newest HISTORY_LENGTH clicks of their user; they have no row."""
    rejected: tuple[Rejected, ...]
    """The messages without a row that are not duplicates, with the reason: the invalid ones in the order of the
    messages, then the others in the order of their timestamps."""


@dataclass(frozen=True)
class _ParsedClick:
    user: str
    product: str
    timestamp_us: int
    message: StreamMessage


class InterestUpdater:
    """The interest of the users who click, for one encoder version, updated click by click.

    Nothing is written; the rows that `apply_clicks` returns must be.
    """

    def __init__(self, settings: Settings, encoder_version: str, width: int) -> None:
        """Start without any state.

        Args:
            settings: the deployment.
            encoder_version: version of the product vectors; states and products of other versions are ignored.
            width: length of the vectors.
        """
        self._settings = settings
        self._version = encoder_version
        self._age_bounds = settings.age_scale.bounds
        self._stages = len(settings.age_scale.stages)
        lengths = (width, self._stages, len(schema.CHILD_GENDERS))
        self._widths = dict(zip(("fused_vector", *_DISTRIBUTIONS), lengths, strict=True))
        self._users: dict[str, UserInterest | None] = {}
        self._products: dict[str, _ProductVersions] = {}
        self._uncommitted: dict[str, list[tuple[str, int, dict[str, Vector]]]] = {}

    def add_product_versions(self, tables: Mapping[str, pa.Table]) -> None:
        """Add product versions that are not committed yet, so that clicks on these products find their features.

        Args:
            tables: table name to rows. Only rows of `product_embedding` and `product_tags` are used; either may be
                missing. They must be of the encoder version of this object, which is not checked. A version replaces an
                earlier one of the same table, product and timestamp.
        """
        for table, columns in _PRODUCT_COLUMNS.items():
            for row in tables[table].to_pylist() if table in tables else ():
                version = self._parse_version(table, columns, row)
                self._uncommitted.setdefault(row[schema.PRODUCT_ID], []).append(version)
                if row[schema.PRODUCT_ID] in self._products:
                    self._products[row[schema.PRODUCT_ID]].add(*version)

    def mark_committed(self) -> None:
        """Forget the product versions of `add_product_versions`, because they are in the offline tables by now.

        If more than MAX_CACHED users are in memory, all users are forgotten, and read again when they click; the same
        holds for products.
        """
        self._uncommitted.clear()
        if len(self._users) > MAX_CACHED:
            self._users.clear()
        if len(self._products) > MAX_CACHED:
            self._products.clear()

    def apply_clicks(self, messages: Sequence[StreamMessage], now: datetime) -> InterestRows:
        """Update the users' states click by click, in timestamp order, and return a row for each new state.

        A click that is among the newest HISTORY_LENGTH of its user is counted and skipped. An invalid click, a click
        before the user's newest one and a click that raises an error are rejected; the others are not affected. A click
        on another product at the time of the newest one is applied. A click on a product that has no features at that
        time is applied with NaN features.

        Args:
            messages: click messages, in any order. Clicks of one time are in the order of the message ids.
            now: the current time, with a time zone. Clicks after this are rejected.

        Returns:
            The rows in the order of the clicks, the number of skipped clicks, and the rejected messages.

        Raises:
            VitrineError: an offline table cannot be read.
        """
        rejected: list[Rejected] = []
        clicks = _parse_clicks(messages, now, rejected)
        clicks.sort(key=lambda click: (click.timestamp_us, len(click.message.id), click.message.id))
        self._load_users(sorted({click.user for click in clicks} - self._users.keys()))
        self._load_products(sorted({click.product for click in clicks} - self._products.keys()))
        rows, duplicates = [schema.USER_INTEREST.empty_table()], 0
        for click in clicks:
            state = self._users[click.user]
            if state is not None and (click.product, click.timestamp_us) in zip(
                state.products, state.times, strict=True
            ):
                duplicates += 1
            elif state is not None and click.timestamp_us < state.times[0]:
                rejected.append((click.message, OUT_OF_ORDER))
            else:
                try:
                    features = self._products[click.product].find_features(click.timestamp_us, self._widths)
                    new_state = update_interest(state, click.product, features, self._age_bounds)
                    arrived: datetime = pa.scalar(click.message.arrived_us, schema.TIMESTAMP).as_py()
                    rows.append(interest_rows.build_row(click.user, new_state, self._version, arrived))
                except Exception as error:
                    rejected.append((click.message, describe_failure(error)))
                else:
                    self._users[click.user] = new_state
        return InterestRows(pa.concat_tables(rows), duplicates, tuple(rejected))

    def _load_users(self, users: list[str]) -> None:
        """Read the newest offline state of each user; None for a user without one."""
        self._users |= dict.fromkeys(users)
        path = self._settings.table(schema.INTEREST_TABLE)
        if not users or not delta.exists(path):
            return
        of_users = pc.field(schema.USER_ID).isin(users) & (pc.field("encoder_version") == self._version)
        versions = delta.read(path, [schema.USER_ID, schema.EVENT_TIMESTAMP, "clicks"], where=of_users)
        newest = versions.group_by(schema.USER_ID).aggregate([(schema.EVENT_TIMESTAMP, "max")])
        if not len(newest):
            return
        event_timestamps = pc.unique(newest[f"{schema.EVENT_TIMESTAMP}_max"])
        where = of_users & pc.field(schema.EVENT_TIMESTAMP).isin(event_timestamps)
        # Of one event timestamp the row created last counts; a stream creates several for clicks of one microsecond.
        order = [(name, "ascending") for name in (schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP, "clicks")]
        for row in delta.read(path, where=where).sort_by(order).to_pylist():
            self._users[row[schema.USER_ID]] = (
                interest_rows.parse_row(row, self._widths["fused_vector"], self._stages) if row["clicks"] else None
            )

    def _load_products(self, products: list[str]) -> None:
        """Read all versions of each product, offline and uncommitted."""
        for product in products:
            self._products[product] = _ProductVersions()
        for table, columns in _PRODUCT_COLUMNS.items():
            path = self._settings.table(table)
            if products and delta.exists(path):
                where = pc.field(schema.PRODUCT_ID).isin(products) & (pc.field("encoder_version") == self._version)
                names = [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, *columns]
                for row in delta.read(path, names, where=where).to_pylist():
                    self._products[row[schema.PRODUCT_ID]].add(*self._parse_version(table, columns, row))
        for product in products:
            for version in self._uncommitted.get(product, ()):
                self._products[product].add(*version)

    def _parse_version(self, table: str, columns: list[str], row: dict[str, Any]) -> tuple[str, int, dict[str, Vector]]:
        """Return the table, timestamp and vectors of a row; a null vector becomes NaN.

        So does a distribution over another number of stages.
        """
        vectors = {}
        for name in columns:
            width = self._widths[name]
            missing = row[name] is None or (name in _DISTRIBUTIONS and len(row[name]) != width)
            vectors[name] = np.full(width, np.nan, np.float32) if missing else np.asarray(row[name], np.float32)
        return table, timestamps.datetime_to_ticks(row[schema.EVENT_TIMESTAMP], "us"), vectors


class _ProductVersions:
    """The versions of one product, by table and timestamp."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, dict[str, Vector]]] = {}

    def add(self, table: str, timestamp_us: int, vectors: dict[str, Vector]) -> None:
        self._versions.setdefault(table, {})[timestamp_us] = vectors

    def find_features(self, timestamp_us: int, widths: Mapping[str, int]) -> Clicks:
        """Return a click on the product, with the newest vectors at or before its time; NaN where there are none."""
        vectors = {name: np.full(width, np.nan, np.float32) for name, width in widths.items()}
        for versions in self._versions.values():
            earlier = [version for version in versions if version <= timestamp_us]
            vectors |= versions[max(earlier)] if earlier else {}
        ages, genders = (vectors[name][None] for name in _DISTRIBUTIONS)
        return Clicks(vectors["fused_vector"][None], ages, genders, np.array([timestamp_us]))


def _parse_clicks(messages: Sequence[StreamMessage], now: datetime, rejected: list[Rejected]) -> list[_ParsedClick]:
    """Return the clicks of the valid messages, in their order; add the others to `rejected`, in their order."""
    fields = [_decode_fields(message) for message in messages]
    texts = pa.chunked_array([[text for *_, text in fields]], pa.string())
    instants_us = timestamps.to_ticks(timestamp_texts.read_texts(texts).values, "us")
    is_guest = find_guests(pa.chunked_array([[user for user, *_ in fields]], pa.string()))
    now_us = timestamps.datetime_to_ticks(now, "us")
    clicks = []
    for message, (user, product, text), instant_us, guest in zip(messages, fields, instants_us, is_guest, strict=True):
        reason = None
        if not (user and product and text):
            reason = MISSING_FIELD
        elif guest:
            reason = GUEST
        elif instant_us == timestamps.NULL_TICKS:
            reason = BAD_TIMESTAMP
        elif instant_us > now_us:
            reason = FUTURE
        elif instant_us < MIN_TIMESTAMP_US:
            reason = TOO_EARLY
        if reason is None:
            clicks.append(_ParsedClick(user, product, int(instant_us), message))
        else:
            rejected.append((message, reason))
    return clicks


def _decode_fields(message: StreamMessage) -> tuple[str, str, str]:
    """Return user, product and timestamp as text; empty where one is missing or not UTF-8. Ids are normalized."""
    user, product, timestamp = (_decode(message.fields.get(name, b"")) for name in FIELDS)
    return normalize_id(user), normalize_id(product), timestamp.strip()


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""
