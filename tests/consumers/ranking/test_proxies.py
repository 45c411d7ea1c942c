import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumers.commands.proxies import proxies as show_proxies
from consumers.ranking import proxies
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.training_set import TrainingSet
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import small_log

DATA = small_log(rows=6000, products=400, users=40)
TEST = np.arange(6000) >= 4000


def with_vectors(data: TrainingSet, vectors: np.ndarray) -> TrainingSet:
    view = data.views["product_embedding"]
    place = view.versions.column_names.index("fused_vector")
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    versions = view.versions.set_column(place, "fused_vector", lists)
    return data.with_views({**data.views, "product_embedding": type(view)(versions, view.since, view.row)})


def test_vectors_of_what_is_clicked_together_hit_far_above_chance_and_noise_does_not() -> None:
    chance = np.random.default_rng(1)
    together = chance.normal(size=(400, 40)).astype(np.float32) * 0.05
    product = np.array([int(name[1:]) for name in DATA.impressions.column("product_id").to_pylist()])
    np.add.at(together, (product, DATA.user), DATA.clicked.astype(np.float32))
    noise = chance.normal(size=(400, 8)).astype(np.float32)
    real, random = (proxies.next_click_hit_rate(with_vectors(DATA, each), TEST) for each in (together, noise))
    assert real > 5 * proxies.NEAREST_SHARE
    assert random < 2.5 * proxies.NEAREST_SHARE


def sold_by(sellers: list[int]) -> GroundTruth:
    """The truth of DATA's products, design d sold by `sellers[d]` of them, in the order of their numbers."""
    design = np.repeat(np.arange(len(sellers)), sellers)
    nothing = np.zeros(0, np.int64)
    return GroundTruth(
        click_probability=np.zeros(0),
        features={},
        product=np.array([int(name[1:]) for name in DATA.impressions.column("product_id").to_pylist()]),
        product_age=nothing,
        product_gender=nothing,
        product_category=pa.chunked_array([pa.array([], pa.string())]),
        product_style=np.zeros((0, 1), np.float32),
        same_product=design,
        product_ids=pa.chunked_array([pa.array([f"p{number}" for number in range(len(design))])]),
    )


def recalled(vectors: np.ndarray, truth: GroundTruth, data: TrainingSet) -> float:
    """The recall of the same product by sorting, product by product."""
    known = np.unique(truth.product[data.views["product_embedding"].row >= 0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for one in known:
        others = np.array([other for other in known if other != one])
        same = truth.same_product[others] == truth.same_product[one]
        nearest = np.argsort(-(unit[others] @ unit[one]))[: proxies.SAME_PRODUCT_K]
        if same.any():
            shares.append(same[nearest].sum() / min(same.sum(), proxies.SAME_PRODUCT_K))
    return float(np.mean(shares))


SELLERS = [1] * 100 + [2] * 60 + [5] * 20 + [20] * 4


def test_same_product_recall_is_what_the_slow_count_says() -> None:
    chance = np.random.default_rng(2)
    truth = sold_by(SELLERS)
    of_design = chance.normal(size=(len(SELLERS), 8))[truth.same_product]
    vectors = (of_design + chance.normal(size=(400, 8))).astype(np.float32)
    found = proxies.same_product_recall(with_vectors(DATA, vectors), truth)
    assert found == pytest.approx(recalled(vectors, truth, DATA), abs=1e-9)
    assert 0.2 < found < 0.9


def test_vectors_of_the_design_alone_recall_every_other_seller_and_noise_hardly_one() -> None:
    chance = np.random.default_rng(3)
    truth = sold_by(SELLERS)
    alike = chance.normal(size=(len(SELLERS), 8)).astype(np.float32)[truth.same_product]
    assert proxies.same_product_recall(with_vectors(DATA, alike), truth) == 1.0
    noise = chance.normal(size=(400, 8)).astype(np.float32)
    assert proxies.same_product_recall(with_vectors(DATA, noise), truth) < 0.08


def test_where_no_product_has_another_seller_there_is_no_recall() -> None:
    vectors = np.random.default_rng(4).normal(size=(400, 8)).astype(np.float32)
    assert np.isnan(proxies.same_product_recall(with_vectors(DATA, vectors), sold_by([1] * 400)))


def point(encoder: int, hit_rate: float, lift: float) -> str:
    figures = {
        "encoder": f"e{encoder}",
        "next_click_hit_rate": hit_rate,
        "same_product_recall": None,
        "tag_f1": 0.5 + lift,
    }
    return json.dumps({"proxies": {**figures, "lift": lift, "ci95": [lift - 0.001, lift + 0.001]}})


def written(folder: Path, encoders: int) -> list[Path]:
    files = [folder / f"{i}.json" for i in range(encoders)]
    for i, file in enumerate(files):
        file.write_text(point(i, hit_rate=0.1 - 0.01 * i, lift=0.001 * i))
    return files


def test_a_rank_correlation_is_given_from_eight_encoders_on_and_not_of_what_some_lack(tmp_path: Path) -> None:
    files = written(tmp_path, 8)
    found = proxies.correlate_with_lift(proxies.read_points(files))
    assert found == pytest.approx({"next_click_hit_rate": -1.0, "tag_f1": 1.0})
    assert proxies.correlate_with_lift(proxies.read_points(files[:7])) == {}
    assert proxies.correlate_with_lift(proxies.read_points([*files[:7], files[0]])) == {}


def test_a_proxy_that_is_the_same_of_all_encoders_has_no_rank_correlation(tmp_path: Path) -> None:
    files = written(tmp_path, 8)
    points = [point | {"next_click_hit_rate": 0.1} for point in proxies.read_points(files)]
    assert proxies.correlate_with_lift(points) == pytest.approx({"tag_f1": 1.0})


def test_the_table_tells_encoders_apart_whose_versions_end_differently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"encoder@5462cdad408{number}" for number in range(2)]
    for number, name in enumerate(names):
        figures = json.loads(point(number, 0.1, 0.01))
        figures["proxies"]["encoder"] = name
        (tmp_path / f"{number}.json").write_text(json.dumps(figures))
    show_proxies([tmp_path / "0.json", tmp_path / "1.json"])
    said = capsys.readouterr().out
    assert all(name[-5:] in said for name in names)
    assert "not below 8 encoders" in said


def test_a_file_without_proxies_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"rows": {}, "comparisons": []}')
    with pytest.raises(VitrineError, match=r"old\.json: no figures"):
        proxies.read_points([tmp_path / "old.json"])
