"""What a generated shop knows and no ranker may: the ceiling against which a lift is read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from consumers.ranking.content_features import FeatureGroup, compute_groups, fit_projection
from consumers.ranking.training_set import JoinedView, TrainingSet, encode_values
from feature_repo import schema
from feature_repo.arrow.take import matrix_to_lists, to_matrix
from feature_repo.errors import VitrineError
from feature_repo.features.ages import MICROSECONDS_A_MONTH, find_child_stage
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, IMPRESSION_ID, PRODUCT_ID, USER_ID


@dataclass(frozen=True)
class GroundTruth:
    """The truth of every impression of a training set, in its order [n]."""

    click_probability: NDArray[np.float64]
    features: dict[str, NDArray[Any]]
    """True tags and tastes, in the form of ranker features."""
    product: NDArray[np.int64]
    """Which of the truth's products each impression showed [n]."""
    product_age: NDArray[np.int64]
    """Index into CHILD_AGES [products]."""
    product_gender: NDArray[np.int64]
    """Index into CHILD_GENDERS [products]."""
    product_category: pa.ChunkedArray
    product_style: NDArray[np.float32]
    """[products, styles]."""
    same_product: NDArray[np.int64]
    """Code of each product's design, the same for all its sellers [products]."""
    product_ids: pa.ChunkedArray


def read_ground_truth(folder: Path, data: TrainingSet) -> GroundTruth:
    """Read `products`, `users` and `impressions` of a shop's truth folder for the rows of `data`.

    Raises:
        VitrineError: a file is missing, or does not know an impression, a product or a user of the log.
    """
    tables = {}
    for name in ("products", "users", "impressions"):
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise VitrineError(f"{file}: no such file; --truth names the truth folder of a shop made by `produce shop`")
        tables[name] = pq.read_table(file)
    shown = _rows(tables["impressions"], IMPRESSION_ID, data.impressions)
    product = _rows(tables["products"], PRODUCT_ID, data.impressions)
    user = _rows(tables["users"], USER_ID, data.impressions)
    products = tables["products"]
    return GroundTruth(
        click_probability=tables["impressions"].column("click_probability").to_numpy()[shown],
        features=_features(products, tables["users"], product, user, data.time),
        product=product,
        product_age=_index(products.column("child_age"), CHILD_AGES).astype(np.int64),
        product_gender=_index(products.column("child_gender"), CHILD_GENDERS).astype(np.int64),
        product_category=products.column("category"),
        product_style=to_matrix(products.column("style")),
        same_product=encode_values(products.column("design_id")),
        product_ids=products.column(PRODUCT_ID),
    )


def _features(
    products: pa.Table, users: pa.Table, product: NDArray[np.int64], user: NDArray[np.int64], time: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    age = _index(products.column("child_age"), CHILD_AGES)[product]
    gender = _index(products.column("child_gender"), CHILD_GENDERS)[product]
    born = users.column("child_birthday").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    months = ((time - born[user]) / MICROSECONDS_A_MONTH).astype(np.float32)
    child = _index(users.column("child_gender"), CHILD_GENDERS)[user]
    unisex = CHILD_GENDERS.index("unisex")
    category = pc.dictionary_encode(products.column("category").combine_chunks()).indices.to_numpy()
    taste, style = to_matrix(users.column("taste")), to_matrix(products.column("style"))
    return {
        "true_age": age,
        "true_age_gap": age - find_child_stage(np.clip(months, 0, None)),
        "true_child_months": months,
        "true_gender": gender.astype(np.int32),
        "true_gender_match": ((gender == child) | (gender == unisex)).astype(np.float32),
        "true_category": category[product].astype(np.int32),
        "true_liking": np.einsum("ij,ij->i", taste[user], style[product]),
    }


def _rows(table: pa.Table, key: str, impressions: pa.Table) -> NDArray[np.int64]:
    """The row of `table` for each impression [n]."""
    found = pc.index_in(impressions.column(key), table.column(key).combine_chunks())
    unknown = found.null_count
    if unknown:
        first = impressions.column(key).filter(pc.is_null(found))[0]
        raise VitrineError(
            f"the truth does not know {unknown} of the log's {key}, for one {first}; is it of the same shop?"
        )
    return found.to_numpy().astype(np.int64)


def _index(column: pa.ChunkedArray, labels: tuple[str, ...]) -> NDArray[np.float32]:
    return pc.index_in(column, pa.array(labels)).cast(pa.float32()).to_numpy()


ORACLE_STEPS = ("true tags", "true vectors", "true tastes")


def replace_inputs(
    data: TrainingSet, truth: GroundTruth, groups: Mapping[str, FeatureGroup], start: int
) -> Iterator[tuple[str, list[FeatureGroup]]]:
    """Each step's groups, in the order of STEPS.

    Args:
        data: the joined log.
        truth: of the same log.
        groups: as `feature_groups` gives them of `data`; what no truth replaces is taken from them.
        start: first microsecond of the test.
    """
    views = dict(data.views)
    if schema.TAGS_TABLE in views:
        views[schema.TAGS_TABLE] = _tags(truth, views[schema.TAGS_TABLE])
    with_tags = compute_groups(data.with_views(views), None)
    kept = {name: groups[name] for name in groups if name in ("codes", "neighbours", "vectors", "missing")}
    yield ORACLE_STEPS[0], [*kept.values(), *(with_tags[name] for name in ("tags", "affinity") if name in with_tags)]
    if schema.EMBEDDING_TABLE in views:
        views[schema.EMBEDDING_TABLE] = _vectors(truth, views[schema.EMBEDDING_TABLE])
        projection = fit_projection(views[schema.EMBEDDING_TABLE], start)
        with_tags = compute_groups(data.with_views(views), projection)
        kept |= {name: with_tags[name] for name in ("vectors",)}
    replaced = [*kept.values(), *(with_tags[name] for name in ("tags", "affinity") if name in with_tags)]
    yield ORACLE_STEPS[1], replaced
    tastes = {
        name: truth.features[name] for name in ("true_liking", "true_child_months", "true_age_gap", "true_gender_match")
    }
    yield ORACLE_STEPS[2], [*replaced, tastes]


def _tags(truth: GroundTruth, tags: JoinedView) -> JoinedView:
    """The view of tags with the true ones, certain."""
    ages, genders = np.eye(len(CHILD_AGES), dtype=np.float32), np.eye(len(CHILD_GENDERS), dtype=np.float32)
    names = np.array(CHILD_AGES)
    versions = pa.table(
        {
            "child_age": pa.array(names[truth.product_age].tolist()),
            "child_gender": pa.array(np.array(CHILD_GENDERS)[truth.product_gender].tolist()),
            "category": truth.product_category,
            "category_probability": pa.array(np.ones(len(truth.product_age), np.float32)),
            "child_age_distribution": matrix_to_lists(ages[truth.product_age]),
            "child_gender_distribution": matrix_to_lists(genders[truth.product_gender]),
        }
    )
    return _of_products(truth, versions, tags)


def _vectors(truth: GroundTruth, embedding: JoinedView) -> JoinedView:
    """The view of vectors with each product's true style, centred and of unit length; one vector instead of three."""
    style = truth.product_style - truth.product_style.mean(axis=0)
    style /= np.maximum(np.linalg.norm(style, axis=1, keepdims=True), 1e-9)
    return _of_products(truth, pa.table({"fused_vector": matrix_to_lists(style.astype(np.float32))}), embedding)


def _of_products(truth: GroundTruth, versions: pa.Table, joined: JoinedView) -> JoinedView:
    """One version for each of the truth's products, there where and as long as the joined view had one."""
    known = joined.row >= 0
    since = np.full(len(versions), np.iinfo(np.int64).max)
    np.minimum.at(since, truth.product[known], joined.since[joined.row[known]])
    return JoinedView(versions, since, np.where(known, truth.product, -1))
