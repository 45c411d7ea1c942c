"""Rows of the benchmark: products with vectors, tags and codes, users with a full history."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo import schema
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH

LEVELS = 4
DIM = 128
ENCODER = "bench@1"


def make_tables(products: int, users: int) -> dict[str, pa.Table]:
    """Return the rows of each view, with timestamps of an hour ago."""
    rng = np.random.default_rng(0)
    now = datetime.now(UTC) - timedelta(hours=1)
    ids = make_ids("product", range(products))
    stamps = {"encoder_version": ENCODER, "event_timestamp": now, "created_timestamp": now}
    labels = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS, "category": [f"baby>{i}" for i in range(40)]}
    tags: dict[str, Any] = {"product_id": ids, "tagger_version": "bench", **stamps}
    for tag, words in labels.items():
        tags[tag] = rng.choice(words, products)
        tags[f"{tag}_probability"] = rng.random(products, np.float32)
    tags["child_age_distribution"] = to_lists(rng.dirichlet(np.ones(len(CHILD_AGES)), products))
    tags["child_gender_distribution"] = to_lists(rng.dirichlet(np.ones(len(CHILD_GENDERS)), products))
    codes = rng.integers(0, 256, (products, LEVELS), np.int32)
    code_rows = {
        "product_id": ids,
        "codes": to_lists(codes),
        "semantic_id": ["-".join(map(str, row)) for row in codes.tolist()],
        "codebook_version": "bench",
        **stamps,
    }
    recent = [make_ids("product", rng.choice(products, HISTORY_LENGTH, replace=False)) for _ in range(users)]
    timestamps = int(now.timestamp() * 1e6) - np.arange(HISTORY_LENGTH) * 3_600_000_000
    interest = {
        "user_id": make_ids("user", range(users)),
        "interest_vector": to_lists(normalize(rng.standard_normal((users, DIM)))),
        "child_age_mix": to_lists(rng.dirichlet(np.ones(len(CHILD_AGES)), users)),
        "child_gender_mix": to_lists(rng.dirichlet(np.ones(len(CHILD_GENDERS)), users)),
        **{f"{kind}_weight": np.ones(users, np.float32) for kind in ("interest", "child_age", "child_gender")},
        "recent_products": recent,
        "recent_times": to_lists(np.tile(timestamps, (users, 1))),
        "clicks": [HISTORY_LENGTH] * users,
        **stamps,
    }
    vectors = normalize(rng.standard_normal((products, DIM)))
    embedding = {
        "product_id": ids,
        **{f"{kind}_vector": to_lists(vectors) for kind in ("image", "text", "fused", "similar")},
        "has_image": [True] * products,
        "has_text": [True] * products,
        **stamps,
    }
    return {
        "product_embedding": fill_columns(embedding, schema.PRODUCT_EMBEDDING),
        "product_tags": fill_columns(tags, schema.PRODUCT_TAGS),
        "product_codes": fill_columns(code_rows, schema.PRODUCT_CODES),
        "user_interest": fill_columns(interest, schema.USER_INTEREST),
    }


def fill_columns(columns: Mapping[str, Any], shape: pa.Schema) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = []
    for field in shape:
        values = columns.get(field.name)
        if values is None:  # columns that are not online
            arrays.append(pa.nulls(count, field.type))
            continue
        is_scalar = isinstance(values, str | datetime)
        arrays.append(pa.array([values] * count if is_scalar else values).cast(field.type))
    return pa.table(arrays, schema=shape)


def to_lists(matrix: Any) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1]).cast(pa.list_(flat.type))


def normalize(matrix: Any) -> Any:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def make_ids(kind: str, numbers: Any) -> list[str]:
    return [f"{kind}-{number:06d}" for number in np.asarray(numbers).tolist()]
