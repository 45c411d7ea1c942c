"""What a tuning learns from: labelled pairs and designs, labelled sentences, and words of titles as sentences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array, coo_matrix, csr_array
from scipy.sparse.csgraph import connected_components

from feature_repo.arrow.text import normalize_ids, normalize_texts
from feature_repo.errors import InvalidInputError
from feature_repo.index.segmentation import segment_text
from feature_repo.offline import input_files, validation
from feature_repo.pairs.labels import read_judgements, select_pairs
from feature_repo.schema import CATEGORY_SEPARATOR, PRODUCT_ID
from producers.encoders.tuning.examples import Rows, SameProducts, Sentences
from producers.index.word_model import choose_words

logger = logging.getLogger(__name__)

SHARE = 0.2
"""Share of the designs, and of the products without another of their design, that are held out."""
NAMED = 5
"""Unknown ids that a warning names."""


@dataclass(frozen=True)
class LabelledPairRows:
    """Labelled pairs as rows of the products, [pairs, 2] each."""

    same: Rows
    different: Rows


def read_pair_labels(file: Path, product_ids: pa.ChunkedArray) -> LabelledPairRows:
    """Return the pairs that a file labels; those with an unknown product are left out with a warning.

    Args:
        file: CSV of `feature_repo.pairs.labels`. Pairs that are similar count as different, unsure ones not at all.
        product_ids: [n], the ids of the products; of a repeated one the first row counts.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it cannot be read, has two answers for one pair, no pair of known products, or pairs of one
            answer only.
    """
    judgements = read_judgements(file)
    ids = pc.unique(product_ids)
    known = pc.and_(*(pc.is_in(judgements[name], value_set=ids) for name in ("product_id_l", "product_id_r")))
    kept = judgements.filter(known)
    unknown = pc.unique(
        pa.chunked_array([judgements["product_id_l"].combine_chunks(), judgements["product_id_r"].combine_chunks()])
    )
    _warn_of_unknown(
        file, unknown.filter(pc.invert(pc.is_in(unknown, value_set=ids))), len(judgements) - len(kept), len(judgements)
    )
    pairs = select_pairs(kept, ids)
    first = pc.index_in(ids, value_set=product_ids.combine_chunks()).to_numpy().astype(np.int64)
    rows = np.stack([first[pairs.left], first[pairs.right]], axis=1)
    same, different = rows[pairs.is_same], rows[~pairs.is_same]
    if not len(same) or not len(different):
        raise InvalidInputError(
            f"{file}: {len(same)} pairs of known products are the same and {len(different)} are not; both are needed: "
            "label more, or name groups of the same product by --designs instead"
        )
    return LabelledPairRows(same, different)


def join_products(
    titles: Sequence[str], designs: Sequence[str | None] | None, pairs: LabelledPairRows | None
) -> tuple[SameProducts, Rows]:
    """Return what is known about products, and which belong together when some are held out [n].

    Products of one design are the same, and so are those that are linked by pairs labelled as the same. Products with
    equal titles are held out together, too.

    Args:
        titles: [n].
        designs: [n], None for a product without one; None without any.
        pairs: labelled pairs; None without any.
    """
    n = len(titles)
    same = np.empty((0, 2), np.int64) if pairs is None else pairs.same
    links = [same, _link_equal([None] * n if designs is None else designs)]
    groups = _join(n, links)
    is_complete = np.array([False] * n if designs is None else [design is not None for design in designs])
    different = np.empty((0, 2), np.int64) if pairs is None else pairs.different
    # A pair that is labelled as different but linked by others as the same is no example of either.
    different = different[groups[different[:, 0]] != groups[different[:, 1]]]
    return SameProducts(groups, is_complete, different), _join(n, [*links, _link_equal(titles)])


def draw_held_out(units: Rows, groups: Rows, product_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return which products are held out [n]: whole units, SHARE of those that have two of a group and of the others.

    Units are taken in the order of a hash of their smallest id, so most stay held out when products are added.
    """
    _, unit = np.unique(units, return_inverse=True)
    names = np.full(int(unit.max()) + 1, "", object)
    for row in sorted(range(len(unit)), key=lambda row: product_ids[row], reverse=True):
        names[unit[row]] = product_ids[row]
    place = np.array([_hash_to_unit(str(name)) for name in names])
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
    has_same = np.zeros(len(names), bool)
    has_same[unit[sizes[np.unique(groups, return_inverse=True)[1]] > 1]] = True
    chosen = np.zeros(len(names), bool)
    for part in (np.flatnonzero(has_same), np.flatnonzero(~has_same)):
        chosen[part[np.argsort(place[part], kind="stable")][: round(SHARE * len(part))]] = True
    return chosen[unit]


def read_sentence_labels(file: Path, product_ids: pa.ChunkedArray) -> Sentences:
    """Return the sentences that a file labels; rows with an unknown product are left out with a warning.

    Args:
        file: CSV or Parquet with `query`, `product_id` and `relevant` (0 or 1), as for `consume search-report`.
        product_ids: [n], the ids of the products; of a repeated one the first row counts.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it cannot be read, is empty or lacks a column; a value is not text, or neither 0 nor 1; a
            product has two labels for one query; or no known product fits, or none does not.
    """
    table = input_files.read_table(file, ["query", PRODUCT_ID])
    validation.require_columns(table, ["query", PRODUCT_ID, "relevant"], file)
    queries = normalize_texts(validation.parse_text(table, "query", file))
    ids = normalize_ids(validation.parse_text(table, PRODUCT_ID, file))
    relevant = validation.parse_numbers(table, "relevant", file).fill_null(-1).to_numpy()
    wrong = np.flatnonzero(~np.isin(relevant, (0, 1)))
    if len(wrong):
        raise InvalidInputError(f"{file} row {wrong[0] + 1}: `relevant` is neither 0 nor 1; correct it")
    row = pc.index_in(ids, value_set=pc.unique(product_ids))
    first = pc.index_in(pc.unique(product_ids), value_set=product_ids.combine_chunks())
    is_known = pc.and_(row.is_valid(), queries.is_valid()).to_numpy()
    unknown = pc.unique(ids.filter(pc.invert(pc.is_in(ids, value_set=product_ids.combine_chunks())))).drop_null()
    _warn_of_unknown(file, unknown, int((~is_known).sum()), len(table))
    coded = pc.dictionary_encode(queries.filter(pa.array(is_known))).combine_chunks()
    line, labels = coded.indices.to_numpy().astype(np.int64), relevant[is_known]
    product = first.take(row.filter(pa.array(is_known)).combine_chunks()).to_numpy().astype(np.int64)
    texts = coded.dictionary.to_pylist()
    keys, counts = np.unique(line * len(product_ids) + product, return_counts=True)
    if (counts > 1).any():
        key = int(keys[counts > 1][0])
        raise InvalidInputError(
            f"{file}: the query {texts[key // len(product_ids)]!r} has two labels for "
            f"{product_ids[key % len(product_ids)].as_py()}; keep one"
        )
    if not (labels == 1).any() or not (labels == 0).any():
        raise InvalidInputError(
            f"{file}: {int((labels == 1).sum())} labels of known products are 1 and {int((labels == 0).sum())} are 0; "
            "both are needed"
        )
    shape = len(texts), len(product_ids)
    fits, misfits = (_to_matrix(line[labels == value], product[labels == value], shape) for value in (1, 0))
    return Sentences(texts, fits, misfits)


def make_sentences(products: pa.Table, is_trained: NDArray[np.bool_]) -> Sentences:
    """Return the frequent words of the titles, and the names of categories, as sentences.

    A word fits the products whose title has it, a name those of the category.

    Args:
        products: `title`, and `category` where the shop has it; n rows.
        is_trained: [n]; words and names are chosen from these products.

    Raises:
        InvalidInputError: no word is frequent enough.
    """
    words = [set(segment_text(title)) for title in products["title"].to_pylist()]
    if "category" in products.column_names:
        for own, value in zip(words, products["category"].to_pylist(), strict=True):
            if value:
                own.add(value.split(CATEGORY_SEPARATOR)[-1].strip().lower())
    texts = choose_words([words[row] for row in np.flatnonzero(is_trained)])
    if not texts:
        raise InvalidInputError("no word is in 10 titles or more: the products are too few to make sentences of")
    column = {text: number for number, text in enumerate(texts)}
    cells = [(column[word], row) for row, own in enumerate(words) for word in sorted(own) if word in column]
    line, row = np.array(cells, np.int64).T
    return Sentences(texts, _to_matrix(line, row, (len(texts), len(words))), None)


def _to_matrix(line: Rows, column: Rows, shape: tuple[int, int]) -> csr_array:
    return coo_array((np.ones(len(line), np.float32), (line, column)), shape=shape).tocsr()


def _link_equal(values: Sequence[str | None]) -> Rows:
    """Return a pair of rows for each value that is not None and equals an earlier one: that row and the first one."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(value, row), row) for row, value in enumerate(values) if value is not None]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _join(n: int, links: Sequence[Rows]) -> Rows:
    left, right = np.concatenate(links).T
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _hash_to_unit(name: str) -> float:
    """Return a number in [0, 1) that depends on the name only."""
    return int.from_bytes(blake2b(name.encode(), digest_size=6, person=b"tuning").digest()) / 2**48


def _warn_of_unknown(file: Path, unknown: pa.Array, rows: int, total: int) -> None:
    """Warn of rows that are left out because their products are unknown."""
    if rows:
        names = ", ".join(str(name) for name in unknown[:NAMED].to_pylist())
        more = f" and {len(unknown) - NAMED:,} more" if len(unknown) > NAMED else ""
        logger.warning(
            "%s: %d of %d rows are left out, because products are not among those with title and image: %s%s",
            file,
            rows,
            total,
            names,
            more,
        )
