"""Generated products with vectors and known tags.

Design d has age stage d % 5, gender d % 3 and category d % 4. The image vector encodes age and category. The text
vector encodes gender, category and, for half of the products, age.
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
    """Return `sellers` products of each design. Product n has design n // sellers; every eleventh has no title."""
    rows = []
    for number in range(designs * sellers):
        tags = truth(number // sellers)
        age = tags["child_age"] if number % 4 < 2 else "baby"
        title = None if number % 11 == 9 else f"{tags['child_gender']} {age} {tags['category'].split('>')[1]}"
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
    """Return vectors for the rows of `catalogue`. Every seventh product has no image."""
    rng = np.random.default_rng(seed)
    axes = {name: rng.normal(size=(5, WIDTH)) for name in ("child_age", "child_gender", "category")}
    values = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS, "category": CATEGORIES}

    def vector(*tags: tuple[str, str]) -> list[float]:
        sum_of_axes = sum((axes[tag][values[tag].index(value)] for tag, value in tags), np.zeros(WIDTH))
        noisy = sum_of_axes + rng.normal(scale=0.5, size=WIDTH)
        return (noisy / np.linalg.norm(noisy)).astype(np.float32).tolist()

    rows = []
    for row in products.to_pylist():
        number = int(row["product_id"][1:])
        tags = truth(number // sellers)
        category, gender = ("category", tags["category"]), ("child_gender", tags["child_gender"])
        image = None if number % 7 == 6 else vector(("child_age", tags["child_age"]), category)
        age = [("child_age", tags["child_age"])] if number % 4 < 2 else []
        text = None if row["title"] is None else vector(*age, gender, category)
        if image or text:
            vectors = [np.array(part) for part in (image, text) if part]
            fused = np.mean(vectors, axis=0)
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
    """Return a deployment with a catalogue and embeddings."""
    settings = store(folder)
    products = catalogue(designs)
    delta.append(settings.table("product_catalogue"), products)
    delta.append(settings.table("product_embedding"), embeddings(products))
    return settings
