"""Rows of `product_group` and its journal: which group each product was in, and is in now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, INPUT_DIGEST, PRODUCT_ID, TIMESTAMP
from producers import input_digest
from producers.groups.group_ids import CHANGES as CHANGES
from producers.groups.group_ids import assign_group_ids, name_changes
from producers.input_digest import Digests

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

VECTOR_COLUMNS = ("image_vector", "text_vector", "fused_vector", "similar_vector")
TEXT_COLUMNS = ("title", "brand", "category", schema.SELLER_ID)


@dataclass(frozen=True)
class FormerGroups:
    """The newest rows of `product_group`, for n active products, and for those that are gone since."""

    group_id: list[str | None]
    """[n], None for a product without a row."""
    event_us: Int64
    """[n], event timestamp of that row, microseconds since 1970 UTC; 0 without a row."""
    digest: pa.Array
    """[n], int64, null without a row."""
    is_returned: Bools
    """[n], whether the journal's last change of the product is `gone`: an active product has returned."""
    gone: dict[str, str]
    """Product id -> group id of each product that has a row, is not active, and is not `gone` in the journal yet."""

    @staticmethod
    def read(settings: Settings, product_ids: pa.Array) -> "FormerGroups":
        """Read the newest rows.

        Args:
            settings: the deployment.
            product_ids: [n], the active products, each once.
        """
        rows = _read_newest(
            settings, schema.GROUP_TABLE, ["group_id", EVENT_TIMESTAMP, INPUT_DIGEST], schema.PRODUCT_GROUP
        )
        journal = _read_newest(settings, schema.GROUP_JOURNAL_TABLE, ["change"], schema.PRODUCT_GROUP_JOURNAL)
        away = journal.filter(pc.field("change") == "gone")[PRODUCT_ID].combine_chunks()
        position = pc.index_in(product_ids, value_set=rows[PRODUCT_ID].combine_chunks())
        taken = rows.take(position)
        is_left = pc.and_(
            pc.invert(pc.is_in(rows[PRODUCT_ID], value_set=product_ids)),
            pc.invert(pc.is_in(rows[PRODUCT_ID], value_set=away)),
        )
        left = rows.filter(is_left)
        return FormerGroups(
            taken["group_id"].to_pylist(),
            taken[EVENT_TIMESTAMP].cast(pa.int64()).fill_null(0).to_numpy(),
            taken[INPUT_DIGEST].combine_chunks(),
            pc.is_in(product_ids, value_set=away).to_numpy(zero_copy_only=False),
            dict(zip(left[PRODUCT_ID].to_pylist(), left["group_id"].to_pylist(), strict=True)),
        )

    def is_current(self, digests: Digests) -> Bools:
        """Return whether a product has a row that was made from the same inputs, bool [n]."""
        return pc.equal(self.digest, input_digest.to_arrow(digests)).fill_null(False).to_numpy(zero_copy_only=False)

    def list_links(self) -> tuple[Int64, Int64]:
        """Return the links of each former group: for each member but the first, the row of the first and its own."""
        first: dict[str, int] = {}
        links = [(first.setdefault(group, row), row) for row, group in enumerate(self.group_id) if group is not None]
        pairs = np.array([link for link in links if link[0] != link[1]], np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


def hash_products(products: pa.Table, made_by: str) -> Digests:
    """Return a digest of what each product is compared by, and of what compares it, uint64 [n].

    Args:
        products: n products, as `read_products` returns them.
        made_by: the verifier and the options that decide groups.
    """
    columns = [input_digest.hash_texts(pa.repeat(pa.scalar(made_by), len(products)))]
    columns += [input_digest.hash_texts(products[name]) for name in TEXT_COLUMNS if name in products.column_names]
    prices = products["price"].cast(pa.float64()).to_numpy()
    columns.append(input_digest.hash_numbers(prices.view(np.int64)))
    for name in VECTOR_COLUMNS:
        if products[name].null_count < len(products):
            columns.append(input_digest.hash_vectors(to_matrix(products[name])))
    return input_digest.combine(*columns)


def assign(
    product_ids: pa.Array, cluster: Int64, former: FormerGroups, is_chosen: Bools, now: datetime
) -> tuple[list[str], list[str | None]]:
    """Return the group id of each of n products, and what changed.

    Args:
        product_ids: [n].
        cluster: [n], equal for products of one group.
        former: of the same products.
        is_chosen: [n], products whose group may change; the others keep theirs. All members of a group are chosen, or
            none.
        now: the created timestamp, with a time zone.
    """
    rows = np.flatnonzero(is_chosen)
    names = product_ids.take(pa.array(rows)).to_pylist()
    before = [former.group_id[row] for row in rows]
    created_us = pa.scalar(now, TIMESTAMP).value
    current = assign_group_ids(names, cluster[rows].tolist(), before, created_us)
    group_ids: list[str] = [group or "" for group in former.group_id]
    changes: list[str | None] = [None] * len(group_ids)
    for row, group, change in zip(rows.tolist(), current, name_changes(before, current), strict=True):
        group_ids[row] = group
        changes[row] = "returned" if change is None and former.is_returned[row] else change
    return group_ids, changes


def build_group_rows(
    products: pa.Table,
    group_ids: Sequence[str],
    changes: Sequence[str | None],
    is_changed: Bools,
    former: FormerGroups,
    digests: Digests,
    made_by: tuple[str, str],
    now: datetime,
) -> pa.Table:
    """Return the rows of schema.PRODUCT_GROUP to add, sorted by product.

    Products get a row whose group or whose inputs changed. The first row of a product has its own event timestamp; a
    row with another group than before has the newest event timestamp of the group's members. No row is older than the
    product's former one.

    Args:
        products: n products, as `read_products` returns them.
        group_ids: [n].
        changes: [n], of `assign`.
        is_changed: [n], whether the inputs changed.
        former: of the same products.
        digests: [n].
        made_by: versions of the verifier and of the encoder.
        now: the created timestamp, with a time zone.
    """
    event_us = products[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    newest: dict[str, int] = {}
    for group, time in zip(group_ids, event_us.tolist(), strict=True):
        newest[group] = max(time, newest.get(group, time))
    moved = np.array([change in ("merged", "split") for change in changes], bool)
    of_group = np.array([newest[group] for group in group_ids], np.int64)
    times = np.maximum(np.where(moved, np.maximum(of_group, event_us), event_us), former.event_us)
    rows = np.flatnonzero(is_changed | moved)
    chosen = pa.array(rows)
    return pa.table(
        {
            PRODUCT_ID: products[PRODUCT_ID].take(chosen),
            "group_id": pa.array([group_ids[row] for row in rows.tolist()], pa.string()),
            "verifier_version": pa.repeat(pa.scalar(made_by[0]), len(rows)),
            "encoder_version": pa.repeat(pa.scalar(made_by[1]), len(rows)),
            EVENT_TIMESTAMP: pa.array(times[rows], TIMESTAMP),
            CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(rows)),
            INPUT_DIGEST: input_digest.to_arrow(digests[rows]),
        }
    ).cast(schema.PRODUCT_GROUP)


def build_journal_rows(
    product_ids: pa.Array,
    group_ids: Sequence[str],
    changes: Sequence[str | None],
    former: FormerGroups,
    verifier_version: str,
    now: datetime,
) -> pa.Table:
    """Return rows of schema.PRODUCT_GROUP_JOURNAL for each product whose group changed, and for those that left."""
    names = product_ids.to_pylist()
    rows: list[tuple[str, str, str | None, str | None]] = [
        (names[row], change, former.group_id[row], group_ids[row]) for row, change in enumerate(changes) if change
    ]
    rows += [(product_id, "gone", group, None) for product_id, group in sorted(former.gone.items())]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    times = pa.repeat(pa.scalar(now, TIMESTAMP), len(rows))
    texts = [pa.array(column, pa.string()) for column in columns]
    version = pa.repeat(pa.scalar(verifier_version), len(rows))
    return pa.table([*texts, version, times, times], schema=schema.PRODUCT_GROUP_JOURNAL)


def _read_newest(settings: Settings, table: str, columns: list[str], empty: pa.Schema) -> pa.Table:
    """Return product ids and columns of the newest row of each product; no rows if there is no table."""
    path = settings.table(table)
    if not delta.exists(path):
        return empty.empty_table().select([PRODUCT_ID, *columns])
    return versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID, *columns],
        None,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
