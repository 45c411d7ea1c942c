"""A small joined log, for tests of what follows the join."""

import numpy as np
import pyarrow as pa

from consumers.ranking import screening
from consumers.ranking.content_features import NEIGHBOURS
from consumers.ranking.plan import TrainingPlan
from consumers.ranking.result import LiftResult
from consumers.ranking.run import measure_joined_lift
from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, TIMESTAMP

START = 1_767_225_600_000_000  # 2026-01-01 UTC in microseconds
DAY = 86_400_000_000


def small_log(
    rows: int = 3000, users: int = 40, products: int = 60, days: int = 20, seed: int = 0
) -> RankingTrainingSet:
    """A log in which users click products close to their taste, with equal timestamps, missing versions and vectors."""
    generator = np.random.default_rng(seed)
    user = generator.integers(0, users, rows)
    product = generator.integers(0, products, rows)
    time = np.sort(START + generator.integers(0, days * 24 * 60, rows) * 60_000_000)
    vectors = generator.normal(size=(products, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    taste = generator.normal(size=(users, 8))
    clicked = generator.random(rows) < 1 / (1 + np.exp(1.5 - 2 * np.einsum("ij,ij->i", taste[user], vectors[product])))
    impressions = pa.table(
        {
            "impression_id": [f"i{i}" for i in range(rows)],
            "user_id": [f"u{i}" for i in user],
            "product_id": [f"p{i}" for i in product],
            "event_timestamp": pa.array(time, TIMESTAMP),
            "clicked": pa.array(clicked.astype(np.int8)),
            "child_age_months": pa.array(
                generator.uniform(0, 90, rows).astype(np.float32), mask=generator.random(rows) < 0.4
            ),
            "child_gender": pa.array(generator.choice(["boy", "girl"], rows), mask=generator.random(rows) < 0.4),
        }
    )
    listed = START + generator.integers(-5, days - 3, products) * DAY
    no_image = generator.random(products) < 0.1
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    image = pa.array([None if gone else v for gone, v in zip(no_image, vectors, strict=True)], pa.list_(pa.float32()))
    views = {
        "product_catalogue": pa.table(
            {
                "category": [f"baby>c{i % 5}" for i in range(products)],
                "brand": [None if i % 7 == 0 else f"b{i % 4}" for i in range(products)],
                "price": generator.uniform(5, 300, products),
            }
        ),
        "product_embedding": pa.table(
            {
                "fused_vector": lists,
                "image_vector": image,
                "text_vector": lists,
                "has_image": ~no_image,
                "has_text": np.ones(products, bool),
                "encoder_version": ["small@0"] * products,
            }
        ),
        "product_tags": pa.table(
            {
                "child_age": [CHILD_AGES[i % 5] for i in range(products)],
                "category": [f"baby>c{i % 5}" for i in range(products)],
                "category_probability": pa.array(generator.random(products).astype(np.float32)),
                "child_age_distribution": _distributions(generator, products, len(CHILD_AGES)),
                "child_gender_distribution": _distributions(generator, products, len(CHILD_GENDERS)),
                "encoder_version": ["small@0"] * products,
            }
        ),
    }
    codes = generator.integers(0, 4, (products, 2)).astype(np.int32)
    views["product_codes"] = pa.table(
        {
            "codes": pa.array([None if i % 9 == 0 else pair for i, pair in enumerate(codes)], pa.list_(pa.int32())),
            "semantic_id": [None if i % 9 == 0 else f"{a}-{b}" for i, (a, b) in enumerate(codes)],
        }
    )
    row = np.where(listed[product] <= time, product, -1)
    joined = {name: JoinedView(versions, listed, row) for name, versions in views.items()}
    return RankingTrainingSet(
        impressions, joined | {"product_neighbours": _neighbours(generator, listed, product, time, days)}
    )


def measure_small_lift(
    data: RankingTrainingSet,
    *,
    days: float,
    seeds: int = 1,
    permutations: int = 1,
    replicates: int = 20,
    ranker: str = "lightgbm",
    screening_errors: float = screening.ERRORS,
) -> LiftResult:
    """The result of `consume lift` for a joined log."""
    return measure_joined_lift(
        data,
        None,
        test_days=days,
        plan=TrainingPlan(
            seeds=seeds,
            permutations=permutations,
            ablation_rows=10_000,
            ranker=ranker,
            screening_errors=screening_errors,
        ),
        replicates=replicates,
        counts={"unmatched": 0, "refused": 0},
        progress=lambda *_: None,
    )


def truncate(data: RankingTrainingSet, rows: int) -> RankingTrainingSet:
    """The first `rows` rows of the log."""
    return RankingTrainingSet(
        data.impressions.slice(0, rows),
        {
            name: JoinedView(view.versions, view.timestamp_us, view.row_index[:rows])
            for name, view in data.views.items()
        },
    )


def _neighbours(
    generator: np.random.Generator, listed: np.ndarray, product: np.ndarray, time: np.ndarray, days: int
) -> JoinedView:
    """A version of every listed product for every day."""
    day, of = (each.ravel() for each in np.meshgrid(np.arange(days), np.arange(len(listed)), indexing="ij"))
    there = START + day * DAY >= listed[of]
    day, of = day[there], of[there]
    version_row = np.full((days, len(listed)), -1)
    version_row[day, of] = np.arange(len(day))
    columns = {name: pa.array(generator.random(len(day)).astype(np.float32)) for name in NEIGHBOURS}
    return JoinedView(pa.table(columns), START + day * DAY, version_row[(time - START) // DAY, product])


def _distributions(generator: np.random.Generator, rows: int, width: int) -> pa.Array:
    return pa.array(list(generator.dirichlet(np.ones(width), rows).astype(np.float32)), pa.list_(pa.float32()))
