"""`produce groups`: adds rows to `product_pair`, `product_group` and its journal for what changed since the last run.

A product is compared only if its inputs differ from those of its newest row in `product_group`: new and changed
products, and all of them after a training. The other pairs keep their stored probabilities. Only groups that are linked
to a changed or returned product are formed again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.offline import delta
from feature_repo.pairs.labels import read_judgements, select_pairs
from feature_repo.pairs.verifier import FOLDER, PairVerifier, load_newest_verifier, save_verifier
from feature_repo.schema import PRODUCT_ID
from producers.groups import group_rows, pairs
from producers.groups.candidates import find_candidates, list_missing_pairs
from producers.groups.clustering import cluster_products, list_components
from producers.groups.context import WORTH_COUNTING
from producers.groups.group_rows import FormerGroups
from producers.groups.matching import MatcherSummary, list_spaces, score_candidates, score_context, train_matcher
from producers.groups.pairs import ScoredPairs
from producers.groups.products import read_products
from producers.tags.embedding_rows import choose_encoder_version

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

LARGEST_COMPLETED = 50
"""Up to this number of products in a connected component all its pairs are scored, not only the candidates."""


@dataclass(frozen=True)
class GroupingSummary:
    """What one run did."""

    verifier_version: str
    encoder_version: str
    trained: MatcherSummary | None
    """None if a stored verifier was used."""
    products: int
    """Active products with vectors."""
    compared: int
    """Products that are new, changed or back."""
    scored: int
    """Pairs that were scored."""
    rows: int
    """Rows added to `product_group`."""
    changes: dict[str, int]
    """Products by what happened to their group, of group_ids.CHANGES."""
    groups: int
    """Groups of at least two active products."""
    grouped: int
    """Active products in them."""

    def __str__(self) -> str:
        learned = ""
        if self.trained is not None:
            learned = (
                f"learned from {self.trained.pairs:,} judged pairs; on products left out, F1 of the judged pairs is "
                f"{self.trained.pair_f1:.3f} alone and {self.trained.group_f1:.3f} with the other pairs\n"
            )
        changes = ", ".join(f"{count:,} {name}" for name, count in self.changes.items() if count) or "no changes"
        return (
            f"{self.verifier_version}: {self.compared:,} of {self.products:,} products compared in "
            f"{self.scored:,} pairs; vectors of {self.encoder_version}\n{learned}"
            f"{self.rows:,} rows added to {schema.GROUP_TABLE}: {changes}; "
            f"{self.grouped:,} products are in {self.groups:,} groups of two and more"
        )


def group_products(
    settings: Settings,
    *,
    judgements: Path | None,
    encoder_version: str | None,
    one_per_seller: bool,
    top_k: int,
    seed: int,
    now: datetime,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> GroupingSummary:
    """Compare new and changed products with the catalogue and write the groups that change.

    Pairs are committed first, then the journal, then the groups. A run that was killed is repeated by the next one; its
    journal may then tell a change twice.

    Args:
        settings: the deployment.
        judgements: CSV of judged pairs from which to train a new verifier; None uses the newest one.
        encoder_version: version of the vectors; None for the one in production.
        one_per_seller: never put two products of one seller into one group. Products without a seller have no limit.
        top_k: candidates of a product in each space.
        seed: of a training.
        now: the created timestamp, with a time zone.
        progress: called with the name of the work, the number that is done, and the total.

    Raises:
        NotFoundError: there are no vectors, no such file, or no verifier of the encoder version.
        InvalidInputError: the judged pairs are not usable, or too few.
        CorruptDataError: a verifier file or a table is damaged.
    """
    version = choose_encoder_version(settings, encoder_version)
    products = read_products(settings, version, now, lambda done, total: progress("describe pictures", done, total))
    product_ids = products[PRODUCT_ID].combine_chunks()
    verifier, trained = _choose_verifier(settings, products, judgements, version, seed, now)
    former = FormerGroups.read(settings, product_ids)
    digests = group_rows.hash_products(products, f"{verifier.version} {one_per_seller}")
    is_changed = ~former.is_current(digests)
    stored = pairs.read_pairs(settings, product_ids, verifier.version)
    # A returned product was not compared with what came while it was away.
    is_compared = is_changed | former.is_returned
    scored, is_affected, count = _score_changed(products, stored, verifier, is_compared, top_k, progress)
    seller = _number_sellers(products) if one_per_seller else None
    is_chosen, cluster = _cluster_affected(scored, verifier.group_threshold, former, is_affected, seller)
    group_ids, changes = group_rows.assign(product_ids, cluster, former, is_chosen, now)
    rows = group_rows.build_group_rows(
        products, group_ids, changes, is_changed, former, digests, (verifier.version, version), now
    )
    journal = group_rows.build_journal_rows(product_ids, group_ids, changes, former, verifier.version, now)
    written = _select_written(scored, stored, len(products), is_affected)
    for table, added in (
        (schema.PAIR_TABLE, pairs.build_pair_rows(written, product_ids, verifier.version, now)),
        (schema.GROUP_JOURNAL_TABLE, journal),
        (schema.GROUP_TABLE, rows),
    ):
        if len(added) or not delta.exists(settings.table(table)):
            delta.append(settings.table(table), added)
    sizes = np.unique(np.array(group_ids, dtype=object).astype(str), return_counts=True)[1]
    names = journal["change"].to_pylist()
    return GroupingSummary(
        verifier.version,
        version,
        trained,
        len(products),
        int(is_compared.sum()),
        count,
        len(rows),
        {name: names.count(name) for name in group_rows.CHANGES},
        int((sizes > 1).sum()),
        int(sizes[sizes > 1].sum()),
    )


def _choose_verifier(
    settings: Settings, products: pa.Table, judgements: Path | None, version: str, seed: int, now: datetime
) -> tuple[PairVerifier, MatcherSummary | None]:
    """Train and store a verifier from judged pairs, or read the newest one."""
    folder = settings.offline / FOLDER
    if judgements is not None:
        judged = select_pairs(read_judgements(judgements), products[PRODUCT_ID])
        trained = train_matcher(products, judged, encoder_version=version, seed=seed, now=now)
        save_verifier(folder, trained.verifier)
        return trained.verifier, trained
    verifier = load_newest_verifier(folder, version)
    if verifier is None:
        raise NotFoundError(
            f"no pair verifier for vectors of {version}; train one from judged pairs: produce groups --pairs FILE.csv"
        )
    return verifier, None


def _score_changed(
    products: pa.Table,
    stored: ScoredPairs,
    verifier: PairVerifier,
    is_changed: Bools,
    top_k: int,
    progress: Callable[[str, int, int], None],
) -> tuple[ScoredPairs, Bools, int]:
    """Return all pairs with those of changed products scored, which products that affects, and how many were scored."""
    n = len(products)

    def score(left: Int64, right: Int64) -> ScoredPairs:
        alone = score_candidates(
            products, left, right, verifier, lambda done: progress("compare pairs", done, len(left))
        )
        return ScoredPairs(left, right, alone, np.full(len(left), np.nan, np.float32))

    def decide(scored: ScoredPairs, is_affected: Bools) -> ScoredPairs:
        kept = scored.select(scored.alone >= WORTH_COUNTING)
        decided = score_context(kept.left, kept.right, kept.alone, n, verifier)
        probability = np.where(kept.touches(is_affected), decided, kept.probability)
        return ScoredPairs(kept.left, kept.right, kept.alone, probability)

    spaces = list_spaces(products, verifier.metric)
    near = find_candidates(spaces, np.flatnonzero(is_changed), top_k=top_k)
    again = stored.select(stored.touches(is_changed))
    key = np.union1d(near[0] * n + near[1], again.left * n + again.right)
    new = score(key // max(n, 1), key % max(n, 1))
    merged = stored.replace_pairs(new, n)
    is_affected = is_changed.copy()
    for touched in (again, new.select(new.alone >= WORTH_COUNTING)):
        is_affected[touched.left] = is_affected[touched.right] = True
    decided = decide(merged, is_affected)
    strong = decided.probability >= verifier.group_threshold
    component = list_components(decided.left[strong], decided.right[strong], n)
    members = _list_members(component, is_affected)
    left, right = list_missing_pairs(decided.left, decided.right, members, n)
    is_unscored = ~np.isin(left * n + right, key)
    if is_unscored.any():
        completed = score(left[is_unscored], right[is_unscored])
        is_affected[completed.left] = is_affected[completed.right] = True
        decided = decide(decided.replace_pairs(completed, n), is_affected)
    return decided, is_affected, len(key) + int(is_unscored.sum())


def _list_members(component: Int64, is_affected: Bools) -> list[Int64]:
    """Return the products of each component of 3 to LARGEST_COMPLETED products that has an affected one."""
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(component[order])) + 1) if len(order) else []
    return [rows for rows in parts if 3 <= len(rows) <= LARGEST_COMPLETED and is_affected[rows].any()]


def _cluster_affected(
    scored: ScoredPairs, threshold: float, former: FormerGroups, is_affected: Bools, seller: Int64 | None
) -> tuple[Bools, Int64]:
    """Return which products may change their group, and the cluster of each product; of the others it means nothing."""
    n = len(is_affected)
    strong = scored.probability >= threshold
    left, right = scored.left[strong], scored.right[strong]
    first, second = former.list_links()
    reach = list_components(np.concatenate([left, first]), np.concatenate([right, second]), n)
    is_chosen = np.isin(reach, reach[is_affected])
    edges = is_chosen[left]
    cluster = cluster_products(
        left[edges], right[edges], scored.probability[strong][edges], n, threshold=threshold, seller=seller
    )
    return is_chosen, cluster


def _select_written(scored: ScoredPairs, stored: ScoredPairs, products: int, is_affected: Bools) -> ScoredPairs:
    """Return the pairs of affected products, and with 0 those stored ones that are no longer worth storing."""
    written = scored.select(scored.touches(is_affected))
    dropped = stored.select(~np.isin(stored.left * products + stored.right, scored.left * products + scored.right))
    zeros = np.zeros(len(dropped.left), np.float32)
    return written.replace_pairs(ScoredPairs(dropped.left, dropped.right, zeros, zeros), products)


def _number_sellers(products: pa.Table) -> Int64:
    """Return a number for each product's seller; -1 if it is unknown."""
    if schema.SELLER_ID not in products.column_names:
        return np.full(len(products), -1)
    codes = products[schema.SELLER_ID].combine_chunks().dictionary_encode().indices
    return codes.fill_null(-1).to_numpy().astype(np.int64)
