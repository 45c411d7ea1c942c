"""`produce groups`: adds rows to `product_pair`, `product_group` and its journal for what changed since the last run.

A product is compared only if its inputs differ from those of its newest row in `product_group`: new and changed
products, and all of them after a training. The other pairs keep their stored probabilities. Only groups that are linked
to a changed or returned product are formed again.

The products, n in all, are those that the index of the verifier can return; they have positions from 0 to n - 1.
"""

from collections import Counter
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
from producers.groups import group_rows, matching_index, pairs
from producers.groups.changed_pairs import cluster_affected, score_changed
from producers.groups.group_rows import FormerGroups
from producers.groups.matching import MatcherSummary, score_candidates, train_matcher
from producers.groups.pairs import ScoredPairs
from producers.groups.products import read_products
from producers.tags.embedding_rows import choose_encoder_version

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]


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

    def report_pictures(done: int, total: int) -> None:
        progress("describe pictures", done, total)

    verifier, trained = _choose_verifier(settings, judgements, version, top_k, seed, now, report_pictures)
    index = matching_index.update_matching_index(settings, version, verifier, now, report_pictures)
    index_rows = np.concatenate([start + one for start, one in zip(index.starts, index.all.rows, strict=False)])
    table = index.take(index_rows, [PRODUCT_ID, schema.SELLER_ID, "embedding_us"])
    product_ids = table[PRODUCT_ID].combine_chunks()
    former = FormerGroups.read(settings, product_ids)
    digests = group_rows.add_maker(
        matching_index.read_digests(index, index_rows), verifier.version, one_per_seller=one_per_seller, top_k=top_k
    )
    is_changed = ~former.is_current(digests)
    stored = pairs.read_pairs(settings, product_ids, verifier.version)
    # A returned product was not compared with what came while it was away.
    is_compared = is_changed | former.is_returned
    near = matching_index.find_candidates(index, index_rows, np.flatnonzero(is_compared), top_k=top_k)

    def score(left: Int64, right: Int64) -> ScoredPairs:
        alone = score_candidates(
            lambda positions: matching_index.take_products(index, index_rows[positions]),
            left,
            right,
            verifier,
            lambda done: progress("compare pairs", done, len(left)),
        )
        return ScoredPairs(left, right, alone, np.full(len(left), np.nan, np.float32))

    scored = score_changed(near, stored, verifier, is_compared, former, score)
    seller = _number_sellers(table) if one_per_seller else None
    is_chosen, cluster = cluster_affected(scored, verifier.group_threshold, former, seller)
    assigned = group_rows.assign(product_ids, cluster, former, is_chosen, now)
    event_us = table["embedding_us"].to_numpy()
    rows = group_rows.build_group_rows(
        product_ids, event_us, assigned, is_changed, former, digests, (verifier.version, version), now
    )
    journal = group_rows.build_journal_rows(product_ids, assigned, former, verifier.version, now)
    for name, added in (
        (schema.PAIR_TABLE, pairs.build_pair_rows(scored.written, product_ids, verifier.version, now)),
        (schema.GROUP_JOURNAL_TABLE, journal),
        (schema.GROUP_TABLE, rows),
    ):
        if len(added) or not delta.exists(settings.table(name)):
            delta.append(settings.table(name), added)
    matching_index.remove_other_indexes(settings, verifier)
    changes = Counter(journal["change"].to_pylist())
    return GroupingSummary(
        verifier.version,
        version,
        trained,
        len(product_ids),
        int(is_compared.sum()),
        scored.count,
        len(rows),
        {name: changes[name] for name in group_rows.CHANGES},
        *assigned.count_groups(former),
    )


def _choose_verifier(
    settings: Settings,
    judgements: Path | None,
    version: str,
    top_k: int,
    seed: int,
    now: datetime,
    progress: Callable[[int, int], None],
) -> tuple[PairVerifier, MatcherSummary | None]:
    """Train and store a verifier from judged pairs, or read the newest one."""
    folder = settings.local / FOLDER
    if judgements is not None:
        products = read_products(settings, version, now, progress)
        judged = select_pairs(read_judgements(judgements), products[PRODUCT_ID])
        trained = train_matcher(products, judged, encoder_version=version, seed=seed, now=now, top_k=top_k)
        save_verifier(folder, trained.verifier)
        return trained.verifier, trained
    verifier = load_newest_verifier(folder, version)
    if verifier is None:
        raise NotFoundError(
            f"no pair verifier for vectors of {version}; train one from judged pairs: produce groups --pairs FILE.csv"
        )
    return verifier, None


def _number_sellers(products: pa.Table) -> Int64:
    """Return a number for each product's seller; -1 if it is unknown."""
    codes = products[schema.SELLER_ID].combine_chunks().dictionary_encode().indices
    return codes.fill_null(-1).to_numpy().astype(np.int64)
