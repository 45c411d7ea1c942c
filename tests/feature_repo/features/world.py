"""A small shop with a deployment. Some of its products lack a vector, tags or codes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.features import interest
from feature_repo.features.interest import Clicks, UserInterest
from feature_repo.offline import delta
from producers.behaviour import interest_rows
from tests.deployments import configure

LISTED = datetime(2026, 1, 1, tzinfo=UTC)
RANKED = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = 86_400_000_000
WIDTH, LEVELS = 12, 3
ENCODER = "small@1"


@dataclass(frozen=True)
class Shop:
    """Products by number with their rows, and the clicks of each user in order: (product, microseconds)."""

    vectors: np.ndarray
    ages: np.ndarray
    genders: np.ndarray
    codes: np.ndarray
    clicks: dict[str, list[tuple[int, int]]]
    age_bounds: tuple[float, ...] = schema.CHILD_AGE_MONTHS

    @property
    def products(self) -> list[str]:
        return [f"p{i}" for i in range(len(self.vectors))]


def small_shop(seed: int = 0, products: int = 40, age_bounds: tuple[float, ...] = schema.CHILD_AGE_MONTHS) -> Shop:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(products, WIDTH)) + 0.6
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[::9] = np.nan
    ages = chance.dirichlet(np.ones(len(age_bounds) - 1) / 2, products).astype(np.float32)
    ages[::7] = np.nan
    genders = chance.dirichlet(np.ones(3), products).astype(np.float32)
    genders[::7] = np.nan
    codes = chance.integers(0, 3, (products, LEVELS))
    codes[::6] = -1
    began = int(LISTED.timestamp() * 1e6)
    clicks = {}
    for user, count in enumerate([0, 1, 2, 7, 49, 50, 51, 120]):
        times = np.sort(began + chance.integers(DAY, 120 * DAY, count))
        clicks[f"u{user}"] = list(zip(chance.integers(0, products, count).tolist(), times.tolist(), strict=True))
    clicks["only pictureless"] = [(9, began + DAY), (18, began + 2 * DAY)]
    return Shop(vectors, ages, genders, codes, clicks, age_bounds)


def interest_of(shop: Shop, user: str) -> UserInterest | None:
    """Return the user's row after the last click, computed one click at a time; None without clicks."""
    state = None
    for product, time in shop.clicks[user]:
        row = np.array([product])
        click = Clicks(shop.vectors[row], shop.ages[row], shop.genders[row], np.array([time]))
        state = interest.update_interest(state, f"p{product}", click, shop.age_bounds)
    return state


def deployment(folder: Path) -> Settings:
    """Write the laptop's feature_store.yaml, with the tables in a folder of the test."""
    folder.mkdir(exist_ok=True)
    return configure(folder)


def write(shop: Shop, deployment: Settings) -> None:
    """Write the offline tables from which the affinity features are computed."""
    write_products(shop, deployment, LISTED)
    stamps = {"event_timestamp": LISTED, "created_timestamp": LISTED, "encoder_version": ENCODER}
    products = pa.array(shop.products)
    catalogue = {"product_id": products, "category": ["baby>c"] * len(products), "price": [9.5] * len(products)}
    _append(deployment, "product_catalogue", schema.CATALOGUE, catalogue, stamps)
    write_codes(shop, deployment, LISTED)
    for user in shop.clicks:
        if (state := interest_of(shop, user)) is not None:
            delta.append(deployment.table("user_interest"), interest_rows.build_row(user, state, ENCODER, RANKED))


def write_products(shop: Shop, deployment: Settings, since: datetime) -> None:
    """Append a version of the vector and the tags of each product that has them."""
    stamps = {"event_timestamp": since, "created_timestamp": since, "encoder_version": ENCODER}
    products = pa.array(shop.products)
    has = ~np.isnan(shop.vectors[:, 0])
    vectors = {name: pa.array(list(shop.vectors)) for name in ("fused_vector", "image_vector", "similar_vector")}
    embedding = {"product_id": products, "has_image": has, "has_text": has, **vectors}
    _append(deployment, "product_embedding", schema.PRODUCT_EMBEDDING, embedding, stamps, has)
    tags = {
        "product_id": products,
        "child_age_distribution": pa.array(list(shop.ages)),
        "child_gender_distribution": pa.array(list(shop.genders)),
    }
    _append(deployment, "product_tags", schema.PRODUCT_TAGS, tags, stamps, ~np.isnan(shop.ages[:, 0]))


def write_codes(shop: Shop, deployment: Settings, since: datetime) -> None:
    """Append a version of the codes of each product that has them."""
    stamps = {"event_timestamp": since, "created_timestamp": since, "encoder_version": ENCODER}
    codes = {"product_id": pa.array(shop.products), "codes": pa.array(shop.codes.tolist())}
    _append(deployment, "product_codes", schema.PRODUCT_CODES, codes, stamps, shop.codes[:, 0] >= 0)


def write_vectors(deployment: Settings, products: list[str], vectors: np.ndarray, since: datetime) -> None:
    """Append a version of the fused vector of each product."""
    stamps = {"event_timestamp": since, "created_timestamp": since, "encoder_version": ENCODER}
    columns = {"product_id": pa.array(products), "fused_vector": pa.array(list(vectors))}
    _append(deployment, "product_embedding", schema.PRODUCT_EMBEDDING, columns, stamps)


def write_rows(deployment: Settings, table: str, since: list[datetime], **columns: list) -> None:
    """Return rows of a product table with their event timestamps; columns that are not given are null."""
    shape = {
        "product_catalogue": schema.CATALOGUE,
        "product_embedding": schema.PRODUCT_EMBEDDING,
        "product_tags": schema.PRODUCT_TAGS,
    }[table]
    times = {"event_timestamp": since, "created_timestamp": since}
    _append(deployment, table, shape, columns | times, {"encoder_version": ENCODER})


def _append(
    deployment: Settings, table: str, shape: pa.Schema, columns: dict, stamps: dict, kept: np.ndarray | None = None
) -> None:
    count = len(columns["product_id"])
    filled = {}
    for field in shape:
        values = columns.get(field.name, [stamps.get(field.name)] * count)
        filled[field.name] = pa.array(values).cast(field.type)
    rows = pa.table(filled, shape)
    delta.append(deployment.table(table), rows if kept is None else rows.filter(pa.array(kept)))
