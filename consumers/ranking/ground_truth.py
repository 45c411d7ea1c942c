"""What a generated shop knows and no ranker may: the ceiling against which a lift is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from consumers.ranking.training_set import TrainingSet, codes
from feature_repo.arrow.vectors import matrix
from feature_repo.errors import VitrineError
from feature_repo.features.ages import MICROSECONDS_A_MONTH, child_stage
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, IMPRESSION_ID, PRODUCT_ID, USER_ID


@dataclass(frozen=True)
class Truth:
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


def read_truth(folder: Path, data: TrainingSet) -> Truth:
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
    return Truth(
        click_probability=tables["impressions"].column("click_probability").to_numpy()[shown],
        features=_features(products, tables["users"], product, user, data.time),
        product=product,
        product_age=_index(products.column("child_age"), CHILD_AGES).astype(np.int64),
        product_gender=_index(products.column("child_gender"), CHILD_GENDERS).astype(np.int64),
        product_category=products.column("category"),
        product_style=matrix(products.column("style")),
        same_product=codes(products.column("design_id")),
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
    taste, style = matrix(users.column("taste")), matrix(products.column("style"))
    return {
        "true_age": age,
        "true_age_gap": age - child_stage(np.clip(months, 0, None)),
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
