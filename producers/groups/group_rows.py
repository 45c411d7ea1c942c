"""Rows of `product_group` and its journal: which group each product was in, and is in now."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, INPUT_DIGEST, PRODUCT_ID, TIMESTAMP
from producers import input_digest
from producers.groups.group_ids import CHANGES as CHANGES
from producers.groups.group_ids import assign_group_ids, name_changes
from producers.input_digest import Digests

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

HASHED_COLUMNS = ("title", "brand", "category", schema.SELLER_ID, "image_hash")


@dataclass(frozen=True)
class FormerGroups:
    """The newest rows of `product_group`, for n active products, and for those that are gone since."""

    names: pa.Array
    """[g], the ids of the groups."""
    group: Int64
    """[n], number of the product's group in `names`; -1 for a product without a row."""
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
        # Most products only ever joined; of the others the last change counts.
        is_move = pc.field("change") != "joined"
        journal = _read_newest(settings, schema.GROUP_JOURNAL_TABLE, ["change"], schema.PRODUCT_GROUP_JOURNAL, is_move)
        away = journal.filter(pc.field("change") == "gone")[PRODUCT_ID].combine_chunks()
        known = rows[PRODUCT_ID].combine_chunks()
        position = pc.index_in(product_ids, value_set=known)
        encoded = rows["group_id"].combine_chunks().dictionary_encode()
        is_left = pc.and_(pc.invert(pc.is_in(known, value_set=product_ids)), pc.invert(pc.is_in(known, value_set=away)))
        left = rows.filter(is_left)
        return FormerGroups(
            encoded.dictionary,
            encoded.indices.take(position).fill_null(-1).to_numpy().astype(np.int64),
            rows[EVENT_TIMESTAMP].combine_chunks().cast(pa.int64()).take(position).fill_null(0).to_numpy(),
            rows[INPUT_DIGEST].combine_chunks().take(position),
            pc.is_in(product_ids, value_set=away).to_numpy(zero_copy_only=False),
            dict(zip(left[PRODUCT_ID].to_pylist(), left["group_id"].to_pylist(), strict=True)),
        )

    def is_current(self, digests: Digests) -> Bools:
        """Return whether a product has a row that was made from the same inputs, bool [n]."""
        return pc.equal(self.digest, input_digest.to_arrow(digests)).fill_null(False).to_numpy(zero_copy_only=False)

    def list_links(self) -> tuple[Int64, Int64]:
        """Return the links of each former group: for each member but the first, the row of the first and its own."""
        members = np.argsort(self.group, kind="stable")[int((self.group < 0).sum()) :]
        first = members[np.searchsorted(self.group[members], self.group[members])]
        is_other = first != members
        return first[is_other], members[is_other]

    def list_names(self, rows: Int64) -> list[str | None]:
        """Return the group ids of some products; None for a product without a row."""
        return self.names.take(pa.array(self.group[rows], mask=self.group[rows] < 0)).to_pylist()


@dataclass(frozen=True)
class AssignedGroups:
    """The groups of m products that may have changed; those of all others stay."""

    rows: Int64
    """[m], ascending, positions of the products."""
    former: list[str | None]
    """[m], None for a new product."""
    group_id: list[str]
    """[m]"""
    change: list[str | None]
    """[m], of group_ids.CHANGES; None if nothing changed."""

    def count_groups(self, former: FormerGroups) -> tuple[int, int]:
        """Return the number of groups of two and more products, and of the products in them, of all n products."""
        others = np.delete(former.group, self.rows)
        chosen = np.array([*Counter(self.group_id).values()], np.int64)
        sizes = np.concatenate([np.bincount(others[others >= 0]), chosen])
        return int((sizes > 1).sum()), int(sizes[sizes > 1].sum())


def hash_inputs(rows: pa.Table, vectors: Mapping[str, NDArray[np.float32]]) -> Digests:
    """Return a digest of what each of n products is compared by, uint64 [n].

    Args:
        rows: [n] rows of INDEX_ROWS.
        vectors: float32 [n, d] by name; NaN where a product has none.
    """
    columns = [input_digest.hash_texts(rows[name]) for name in HASHED_COLUMNS]
    columns.append(input_digest.hash_numbers(rows["price"].fill_null(np.nan).to_numpy().view(np.int64)))
    columns += [input_digest.hash_vectors(vectors[name]) for name in sorted(vectors)]
    return input_digest.combine(*columns)


def add_maker(digests: Digests, verifier_version: str, *, one_per_seller: bool, top_k: int) -> Digests:
    """Return digests [n] of inputs and of what compares them: the verifier, and the options of a run."""
    maker = input_digest.hash_texts(pa.array([f"{verifier_version} {one_per_seller} {top_k}"]))
    return input_digest.combine(np.repeat(maker, len(digests)), digests)


def assign(
    product_ids: pa.Array, cluster: Int64, former: FormerGroups, is_chosen: Bools, now: datetime
) -> AssignedGroups:
    """Return the group ids of the chosen ones of n products, and what changed.

    Args:
        product_ids: [n].
        cluster: [n], equal for products of one group.
        former: of the same products.
        is_chosen: [n], products whose group may change; the others keep theirs. All members of a group are chosen, or
            none.
        now: the created timestamp, with a time zone.
    """
    rows = np.flatnonzero(is_chosen)
    before = former.list_names(rows)
    created_us = pa.scalar(now, TIMESTAMP).value
    names = product_ids.take(pa.array(rows)).to_pylist()
    current = assign_group_ids(names, cluster[rows].tolist(), before, created_us)
    changes = [
        "returned" if change is None and is_returned else change
        for change, is_returned in zip(name_changes(before, current), former.is_returned[rows].tolist(), strict=True)
    ]
    return AssignedGroups(rows, before, current, changes)


def build_group_rows(
    product_ids: pa.Array,
    event_us: Int64,
    assigned: AssignedGroups,
    is_changed: Bools,
    former: FormerGroups,
    digests: Digests,
    made_by: tuple[str, str],
    now: datetime,
) -> pa.Table:
    """Return the rows of schema.PRODUCT_GROUP to add.

    Products get a row whose group or whose inputs changed. The first row of a product has its own event timestamp; a
    row with another group than before has the newest event timestamp of the group's members. No row is older than the
    product's former one.

    Args:
        product_ids: [n].
        event_us: [n], event timestamps of the products' vectors, microseconds since 1970 UTC.
        assigned: groups of some of them; all that changed are among them.
        is_changed: [n], whether the inputs changed.
        former: of the same products.
        digests: [n].
        made_by: versions of the verifier and of the encoder.
        now: the created timestamp, with a time zone.
    """
    own = event_us[assigned.rows]
    newest: dict[str, int] = {}
    for group, time in zip(assigned.group_id, own.tolist(), strict=True):
        newest[group] = max(time, newest.get(group, time))
    moved = np.array([change in ("merged", "split") for change in assigned.change], bool)
    of_group = np.array([newest[group] for group in assigned.group_id], np.int64)
    times = np.maximum(np.where(moved, np.maximum(of_group, own), own), former.event_us[assigned.rows])
    written = np.flatnonzero(is_changed[assigned.rows] | moved)
    rows = assigned.rows[written]
    return pa.table(
        {
            PRODUCT_ID: product_ids.take(pa.array(rows)),
            "group_id": pa.array([assigned.group_id[row] for row in written.tolist()], pa.string()),
            "verifier_version": pa.repeat(pa.scalar(made_by[0]), len(rows)),
            "encoder_version": pa.repeat(pa.scalar(made_by[1]), len(rows)),
            EVENT_TIMESTAMP: pa.array(times[written], TIMESTAMP),
            CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(rows)),
            INPUT_DIGEST: input_digest.to_arrow(digests[rows]),
        }
    ).cast(schema.PRODUCT_GROUP)


def build_journal_rows(
    product_ids: pa.Array, assigned: AssignedGroups, former: FormerGroups, verifier_version: str, now: datetime
) -> pa.Table:
    """Return rows of schema.PRODUCT_GROUP_JOURNAL for each product whose group changed, and for those that left."""
    names = product_ids.take(pa.array(assigned.rows)).to_pylist()
    rows: list[tuple[str, str, str | None, str | None]] = [
        (name, change, before, after)
        for name, change, before, after in zip(names, assigned.change, assigned.former, assigned.group_id, strict=True)
        if change
    ]
    rows += [(product_id, "gone", group, None) for product_id, group in sorted(former.gone.items())]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    times = pa.repeat(pa.scalar(now, TIMESTAMP), len(rows))
    texts = [pa.array(column, pa.string()) for column in columns]
    version = pa.repeat(pa.scalar(verifier_version), len(rows))
    return pa.table([*texts, version, times, times], schema=schema.PRODUCT_GROUP_JOURNAL)


def _read_newest(
    settings: Settings, table: str, columns: list[str], empty: pa.Schema, where: pc.Expression | None = None
) -> pa.Table:
    """Return product ids and columns of the newest row of each product; no rows if there is no table."""
    path = settings.table(table)
    if not delta.exists(path):
        return empty.empty_table().select([PRODUCT_ID, *columns])
    return versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID, *columns],
        where,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
