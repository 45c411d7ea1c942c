"""Products of a public set as titles, pictures, groups and folds.

Products with near-duplicate names are one group, because one of them would give the others away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

from feature_repo.schema import CATEGORY_SEPARATOR, PRODUCT_ID
from producers.datasets.imports.registry import READERS

FOLDS = 5
MIN_SHARED = 0.6
"""Share of their words that the names of two products of one group have in common at least."""
MIN_PRODUCTS = 10
"""Products that a second-level category has at least to be predicted."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PhotographSet:
    """n products that have a title and a picture."""

    titles: list[str]
    images: list[Path]
    groups: Numbers
    """The smallest row of each product's group [n]."""
    folds: Numbers
    """From 0 to FOLDS - 1; a group is in one fold [n]."""
    categories: list[str | None]
    """The first two levels of the category [n]."""


def read_products(name: str, data: Path) -> PhotographSet:
    """Read the products of `flipkart_1050` or `beibei_zh` that have a title and a picture."""
    rows = [row for row in _read(name, data, "products") if row["title"] and row["image"]]
    titles = [row["title"] for row in rows]
    groups = group_names(titles)
    categories = [CATEGORY_SEPARATOR.join((row["category"] or "").split(CATEGORY_SEPARATOR)[:2]) for row in rows]
    return PhotographSet(
        titles,
        [Path(row["image"]) for row in rows],
        groups,
        assign_folds(groups),
        [category if CATEGORY_SEPARATOR in category else None for category in categories],
    )


def read_grocery(data: Path) -> PhotographSet:
    """Read the photos of `grocery`, each with the description of its class as its title; a group is a class."""
    products = {row[PRODUCT_ID]: row for row in _read("grocery", data, "products")}
    photos, classes = [], []
    for pair in _read("grocery", data, "pairs"):
        photos.append(products[pair["left"]])
        classes.append(pair["right"])
    _, first, number = np.unique(classes, return_index=True, return_inverse=True)
    groups = first[number]
    titles = [products[name]["description"] for name in classes]
    return PhotographSet(
        titles, [Path(photo["image"]) for photo in photos], groups, assign_folds(groups), [None] * len(titles)
    )


def _read(name: str, data: Path, table: str) -> list[dict]:
    tables: dict[str, pa.Table] = READERS[name]((data / name).resolve(), datetime.now(UTC)).tables
    return tables[table].to_pylist()


def group_names(names: Sequence[str]) -> Numbers:
    """Return the smallest row of each name's group [n].

    Two names are of one group if they share MIN_SHARED of their different words (Jaccard), directly or by a chain. A
    Chinese character counts as a word.
    """
    words = CountVectorizer(binary=True, token_pattern=r"[a-z0-9]+|[\u4e00-\u9fff]", dtype=np.int64).fit_transform(
        names
    )
    shared = (words @ words.T).tocoo()
    sizes = np.asarray(words.sum(axis=1)).ravel()
    is_close = shared.data >= MIN_SHARED * (sizes[shared.row] + sizes[shared.col] - shared.data)
    shared.data = is_close.astype(np.int64)
    shared.eliminate_zeros()
    component = connected_components(shared, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]


def assign_folds(groups: Numbers) -> Numbers:
    """Return the fold of each row; groups in random order fill the folds with about as many rows each."""
    names, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    fold = np.empty(len(names), np.int64)
    fold[order] = before * FOLDS // len(groups)
    return fold[number]


def find_frequent(categories: Sequence[str | None]) -> NDArray[np.bool_]:
    """Return which rows have a category of MIN_PRODUCTS rows or more [n]."""
    names, number, counts = np.unique([name or "" for name in categories], return_inverse=True, return_counts=True)
    return (counts[number] >= MIN_PRODUCTS) & (names[number] != "")
