"""What was known of products when they were shown or clicked: vectors and tags as of each row of a log."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.offline import asof, delta
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

Int64 = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ProductVersions:
    """Each version in use once, and which of them each of n rows has."""

    embedding: Int64
    """[n], a row of `vectors`; -1 where there was none."""
    vectors: Floats
    """[versions, d], fused."""
    tags: Int64
    """[n], a row of `ages` and `genders`; -1 where there was none."""
    ages: Floats
    """[versions, stages], NaN rows where nothing was learnt."""
    genders: Floats

    def of(self, rows: Int64) -> tuple[Floats, Floats, Floats]:
        """Vectors, ages and genders of some rows; NaN rows where there are none."""
        tags = self.tags[rows]
        return _gather(self.vectors, self.embedding[rows]), _gather(self.ages, tags), _gather(self.genders, tags)


def read_versions(
    settings: Settings, products: pa.Array, product: NDArray[np.int32], time: Int64, encoder_version: str
) -> ProductVersions:
    """The fused vectors and tags of one encoder version that held at each time; no later one is looked at.

    Args:
        products: ids of the codes.
        product: codes [n].
        time: int64 [n], microseconds since 1970 UTC.
    """
    embedding, vectors = held_at(
        settings, schema.EMBEDDING_TABLE, ["fused_vector"], products, product, time, encoder_version
    )
    fused = to_matrix(vectors["fused_vector"])
    if not delta.exists(settings.table(schema.TAGS_TABLE)):
        nothing = np.full(len(product), -1)
        ages, genders = (np.empty((0, len(labels)), np.float32) for labels in (CHILD_AGES, CHILD_GENDERS))
        return ProductVersions(embedding, fused, nothing, ages, genders)
    names = ["child_age_distribution", "child_gender_distribution"]
    tags, found = held_at(settings, schema.TAGS_TABLE, names, products, product, time, encoder_version)
    ages, genders = (to_matrix(found[n], len(ls)) for n, ls in zip(names, (CHILD_AGES, CHILD_GENDERS), strict=True))
    return ProductVersions(embedding, fused, tags, ages, genders)


def held_at(
    settings: Settings,
    table: str,
    columns: list[str],
    products: pa.Array,
    product: NDArray[np.int32],
    time: Int64,
    encoder_version: str | None,
) -> tuple[Int64, pa.Table]:
    """Which version of a product table held for each product code [n] at each time [n], and `columns` of those in use.

    Args:
        encoder_version: look at rows of this one alone; at all rows if None.

    Returns:
        int64 [n], rows of the returned table, -1 for none.
    """
    rows = delta.open_dataset(settings.table(table))
    where = None if encoder_version is None else pc.field("encoder_version") == encoder_version
    order = rows.to_table(columns=[PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP], filter=where)
    versions = asof.index_versions([order[PRODUCT_ID]], order[EVENT_TIMESTAMP], order[CREATED_TIMESTAMP])
    position = np.empty(len(product), np.int64)
    for start in range(0, len(product), 1_000_000):  # the ids of a million rows at a time
        part = slice(start, start + 1_000_000)
        names = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(product[part]), products)])
        position[part] = asof.look_up(versions, [names], pa.chunked_array([pa.array(time[part], TIMESTAMP)]))
    used = np.unique(position[position >= 0])
    number = np.append(np.searchsorted(used, position[position >= 0]), -1)
    place = np.full(len(position), -1)
    place[position >= 0] = number[:-1]
    return place, take.take_rows(rows, used, columns, where=where)


def _gather(values: Floats, row: Int64) -> Floats:
    if not len(values):
        return np.full((len(row), values.shape[1]), np.nan, np.float32)
    found = values[row]
    found[row < 0] = np.nan
    return found
