"""A small shop of vectors whose tags are known.

Design d has age stage d % 5, gender d % 3 and category d % 4. The image says the age plainly and the title half of the
time; the gender stands in the title, the category in both.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CATALOGUE, CHILD_AGES, CHILD_GENDERS, PRODUCT_EMBEDDING

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CATEGORIES = ("clothes>dress", "clothes>romper", "toys>blocks", "toys>doll")
WIDTH = 16


def store(folder: Path) -> Settings:
    file = folder / "feature_store.yaml"
    file.write_text("project: test\noffline_store:\n  path: offline\n")
    return config.load(file)


def truth(design: int) -> dict[str, str]:
    return {
        "child_age": CHILD_AGES[design % 5],
        "child_gender": CHILD_GENDERS[design % 3],
        "category": CATEGORIES[design % 4],
    }


def product_id(number: int) -> str:
    return f"p{number:04d}"


def catalogue(designs: int, *, at: datetime = START, sellers: int = 2) -> pa.Table:
    """`sellers` products of each design; product n is of design n // sellers; every eleventh has no title."""
    rows = []
    for number in range(designs * sellers):
        known = truth(number // sellers)
        age = known["child_age"] if number % 4 < 2 else "baby"
        title = None if number % 11 == 9 else f"{known['child_gender']} {age} {known['category'].split('>')[1]}"
        rows.append(
            {
                "product_id": product_id(number),
                "title": title,
                "event_timestamp": at + timedelta(minutes=number),
                "created_timestamp": at + timedelta(days=1),
            }
        )
    return pa.Table.from_pylist(rows, schema=CATALOGUE)


def embeddings(
    products: pa.Table, *, version: str = "tiny-1", sellers: int = 2, seed: int = 0, created: datetime | None = None
) -> pa.Table:
    """Vectors of `catalogue`'s rows; every seventh product has no image."""
    chance = np.random.default_rng(seed)
    axes = {name: chance.normal(size=(5, WIDTH)) for name in ("child_age", "child_gender", "category")}
    values = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS, "category": CATEGORIES}

    def vector(*said: tuple[str, str]) -> list[float]:
        sum_of_axes = sum((axes[tag][values[tag].index(value)] for tag, value in said), np.zeros(WIDTH))
        noisy = sum_of_axes + chance.normal(scale=0.5, size=WIDTH)
        return (noisy / np.linalg.norm(noisy)).astype(np.float32).tolist()

    rows = []
    for row in products.to_pylist():
        number = int(row["product_id"][1:])
        known = truth(number // sellers)
        category, gender = ("category", known["category"]), ("child_gender", known["child_gender"])
        image = None if number % 7 == 6 else vector(("child_age", known["child_age"]), category)
        spoken = [("child_age", known["child_age"])] if number % 4 < 2 else []
        text = None if row["title"] is None else vector(*spoken, gender, category)
        if image or text:
            there = [np.array(part) for part in (image, text) if part]
            fused = np.mean(there, axis=0)
            unit = (fused / np.linalg.norm(fused)).tolist()
            rows.append(
                {
                    "product_id": row["product_id"],
                    "image_vector": image,
                    "text_vector": text,
                    "fused_vector": unit,
                    "similar_vector": unit,
                    "has_image": image is not None,
                    "has_text": text is not None,
                    "encoder_version": version,
                    "event_timestamp": row["event_timestamp"],
                    "created_timestamp": created or row["created_timestamp"],
                }
            )
    return pa.Table.from_pylist(rows, schema=PRODUCT_EMBEDDING)


def labels(numbers: list[int], *, sellers: int = 2) -> list[dict[str, str | None]]:
    return [
        {"product_id": product_id(number), "tag": tag, "value": value, "group": f"design {number // sellers}"}
        for number in numbers
        for tag, value in truth(number // sellers).items()
    ]


def write_labels(file: Path, rows: list[dict[str, str | None]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def stocked(folder: Path, designs: int = 150) -> Settings:
    """A store whose catalogue and embeddings are there."""
    settings_ = store(folder)
    products = catalogue(designs)
    delta.append(settings_.table("product_catalogue"), products)
    delta.append(settings_.table("product_embedding"), embeddings(products))
    return settings_
