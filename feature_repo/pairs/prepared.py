"""What products are compared by, extracted once for each product instead of once for each pair."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from feature_repo.arrow.take import to_matrix
from feature_repo.pairs.measures import Values, extract_measures
from feature_repo.pairs.metric import PairMetric
from feature_repo.pairs.picture import EDGES
from feature_repo.pairs.title_statistics import TitleStatistics, count_columns, weight_columns
from feature_repo.pairs.title_words import find_model_numbers, join_words, split_grams, split_words
from feature_repo.schema import CATEGORY_SEPARATOR

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

VECTORS = ("image", "text", "fused", "similar")

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class PreparedProducts:
    """n products, ready to be compared. Arrays have one row for each product."""

    vectors: dict[str, Floats]
    """[n, d] by name of VECTORS, NaN where there is none; names without a column are left out."""
    picture: Floats | None
    """[n, picture.WIDTH], NaN where there is none; None without the column."""
    learned: dict[str, Floats]
    """[n, d] by name of metric.SPACES; empty before `with_metric`."""
    image: Int64
    """[n], equal for equal pictures; -1 for no picture."""
    title: sp.csr_matrix
    """TF-IDF of the words of the titles."""
    grams: sp.csr_matrix
    """TF-IDF of the runs of 3 to 5 characters of the titles."""
    text: sp.csr_matrix
    """TF-IDF of the words of title and description; the same as `title` without descriptions."""
    title_weights: sp.csr_matrix
    """Inverse document frequency of each distinct word of the titles."""
    text_weights: sp.csr_matrix
    """The same of title and description."""
    words: list[list[str]]
    """Words of each title, in their order, with repeats."""
    word_weights: list[dict[str, float]]
    """Inverse document frequency by distinct word of the titles."""
    joined: list[str]
    """Title and description without spaces."""
    models: list[set[str]]
    """Model numbers of each title."""
    text_models: list[set[str]]
    """Model numbers of title and description."""
    numbers: list[set[str]]
    """Numbers of each title, as texts."""
    brand: list[str]
    """Without spaces and in lower case; "" if unknown."""
    category: list[list[str]]
    """Levels from the top; empty if unknown."""
    price: Floats
    """NaN if unknown or not positive."""
    measures: list[dict[str, Values]]
    """Of title and description, by name of measures.MEASURES."""

    @staticmethod
    def prepare(products: pa.Table, statistics: TitleStatistics) -> "PreparedProducts":
        """Extract words, model numbers, measures and vectors of n products.

        Args:
            products: n products with any of the columns `title`, `description`, `brand`, `category`, `price`,
                `image_hash`, `picture` (of `describe_picture`) and the vectors `image_vector`, `text_vector`,
                `fused_vector`, `similar_vector` of one encoder version. A missing column is unknown for all.
            statistics: of the catalogue that the verifier was trained on.
        """
        titles = _read_texts(products, "title")
        descriptions = _read_texts(products, "description")
        texts = [f"{title or ''} {more}" if more else title for title, more in zip(titles, descriptions, strict=True)]
        words = [split_words(title) for title in titles]
        title_counts, text_counts = count_columns(titles, split_words), count_columns(texts, split_words)
        return PreparedProducts(
            vectors={
                name: vectors for name in VECTORS if (vectors := _read_vectors(products, f"{name}_vector")) is not None
            },
            picture=_read_vectors(products, "picture"),
            learned={},
            image=_number_images(products),
            title=weight_columns(title_counts, statistics.word_idf),
            grams=weight_columns(count_columns(titles, split_grams), statistics.gram_idf),
            text=weight_columns(text_counts, statistics.word_idf),
            title_weights=_weigh_once(title_counts, statistics.word_idf),
            text_weights=_weigh_once(text_counts, statistics.word_idf),
            words=words,
            word_weights=[statistics.weigh_words(title_words) for title_words in words],
            joined=[join_words(text) for text in texts],
            models=[find_model_numbers(title_words) for title_words in words],
            text_models=[find_model_numbers(split_words(text)) for text in texts],
            numbers=[set(_NUMBER.findall(title or "")) for title in titles],
            brand=[join_words(brand) for brand in _read_texts(products, "brand")],
            category=[
                [] if path is None else path.split(CATEGORY_SEPARATOR) for path in _read_texts(products, "category")
            ],
            price=_read_prices(products),
            measures=[extract_measures(text) for text in texts],
        )

    def list_metric_columns(self) -> dict[str, Floats]:
        """Return the columns that `metric.SPACES` are made of, float32 [n, d] by name; missing ones are left out."""
        columns: dict[str, Floats] = {}
        for name in ("image", "text"):
            if name in self.vectors:
                columns[name] = self.vectors[name]
        if self.picture is not None:
            columns |= {"edges": self.picture[:, :EDGES], "colours": self.picture[:, EDGES:]}
        return columns

    def with_metric(self, metric: PairMetric) -> "PreparedProducts":
        """Return the same products with their vectors in the learned spaces."""
        return replace(self, learned=metric.project(self.list_metric_columns()))


def _read_vectors(products: pa.Table, name: str) -> Floats | None:
    """Return a column of lists as a matrix, NaN for null; None without such a column, or if all are null."""
    if name not in products.column_names or products[name].null_count == len(products):
        return None
    return to_matrix(products[name])


def _weigh_once(counts: sp.csr_matrix, idf: Floats) -> sp.csr_matrix:
    """Return the inverse document frequency of each distinct word of each row."""
    weights = counts.copy()
    weights.data = idf[weights.indices]
    return weights


def _read_texts(products: pa.Table, name: str) -> list[str | None]:
    """Return a column of texts; None for all if there is no such column."""
    return products[name].to_pylist() if name in products.column_names else [None] * len(products)


def _read_prices(products: pa.Table) -> Floats:
    if "price" not in products.column_names:
        return np.full(len(products), np.nan, np.float32)
    price = products["price"].cast(pa.float32()).to_numpy().astype(np.float32)
    return np.where(price > 0, price, np.float32(np.nan))


def _number_images(products: pa.Table) -> Int64:
    if "image_hash" not in products.column_names:
        return np.full(len(products), -1)
    return products["image_hash"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
