import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumers.commands.proxies import proxies as show_proxies
from consumers.ranking import proxies
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import small_log

DATA = small_log(rows=6000, products=400, users=40)
TEST = np.arange(6000) >= 4000


def with_vectors(data: RankingTrainingSet, vectors: np.ndarray) -> RankingTrainingSet:
    view = data.views["product_embedding"]
    index = view.versions.column_names.index("fused_vector")
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    versions = view.versions.set_column(index, "fused_vector", lists)
    return data.with_views({**data.views, "product_embedding": type(view)(versions, view.timestamp_us, view.row_index)})


def test_vectors_of_clicks_have_a_hit_rate_above_chance_and_noise_does_not() -> None:
    generator = np.random.default_rng(1)
    together = generator.normal(size=(400, 40)).astype(np.float32) * 0.05
    product = np.array([int(name[1:]) for name in DATA.impressions.column("product_id").to_pylist()])
    np.add.at(together, (product, DATA.user), DATA.clicked.astype(np.float32))
    noise = generator.normal(size=(400, 8)).astype(np.float32)
    real, random = (proxies.next_click_hit_rate(with_vectors(DATA, each), TEST) for each in (together, noise))
    assert real > 5 * proxies.NEAREST_SHARE
    assert random < 2.5 * proxies.NEAREST_SHARE


def make_truth(sellers: list[int]) -> GroundTruth:
    """The truth about DATA's products, in order of their numbers; design d has `sellers[d]` sellers."""
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


def slow_recall(vectors: np.ndarray, truth: GroundTruth, data: RankingTrainingSet) -> float:
    """Same-product recall, computed product by product by sorting."""
    product_numbers = np.unique(truth.product[data.views["product_embedding"].row_index >= 0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for one in product_numbers:
        others = np.array([other for other in product_numbers if other != one])
        same = truth.same_product[others] == truth.same_product[one]
        nearest = np.argsort(-(unit[others] @ unit[one]))[: proxies.SAME_PRODUCT_K]
        if same.any():
            shares.append(same[nearest].sum() / min(same.sum(), proxies.SAME_PRODUCT_K))
    return float(np.mean(shares))


SELLERS = [1] * 100 + [2] * 60 + [5] * 20 + [20] * 4


def test_same_product_recall_equals_a_slow_count() -> None:
    generator = np.random.default_rng(2)
    truth = make_truth(SELLERS)
    of_design = generator.normal(size=(len(SELLERS), 8))[truth.same_product]
    vectors = (of_design + generator.normal(size=(400, 8))).astype(np.float32)
    result = proxies.same_product_recall(with_vectors(DATA, vectors), truth)
    assert result == pytest.approx(slow_recall(vectors, truth, DATA), abs=1e-9)
    assert 0.2 < result < 0.9


def test_design_vectors_recall_every_other_seller_and_noise_does_not() -> None:
    generator = np.random.default_rng(3)
    truth = make_truth(SELLERS)
    alike = generator.normal(size=(len(SELLERS), 8)).astype(np.float32)[truth.same_product]
    assert proxies.same_product_recall(with_vectors(DATA, alike), truth) == 1.0
    noise = generator.normal(size=(400, 8)).astype(np.float32)
    assert proxies.same_product_recall(with_vectors(DATA, noise), truth) < 0.08


def test_same_product_recall_is_nan_without_other_sellers() -> None:
    vectors = np.random.default_rng(4).normal(size=(400, 8)).astype(np.float32)
    assert np.isnan(proxies.same_product_recall(with_vectors(DATA, vectors), make_truth([1] * 400)))


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


def test_rank_correlations_need_eight_encoders_that_all_have_the_proxy(tmp_path: Path) -> None:
    files = written(tmp_path, 8)
    result = proxies.correlate_with_lift(proxies.read_points(files))
    assert result == pytest.approx({"next_click_hit_rate": -1.0, "tag_f1": 1.0})
    assert proxies.correlate_with_lift(proxies.read_points(files[:7])) == {}
    assert proxies.correlate_with_lift(proxies.read_points([*files[:7], files[0]])) == {}


def test_a_constant_proxy_has_no_rank_correlation(tmp_path: Path) -> None:
    files = written(tmp_path, 8)
    points = [point | {"next_click_hit_rate": 0.1} for point in proxies.read_points(files)]
    assert proxies.correlate_with_lift(points) == pytest.approx({"tag_f1": 1.0})


def test_the_table_shows_encoder_versions_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"encoder@5462cdad408{number}" for number in range(2)]
    for number, name in enumerate(names):
        figures = json.loads(point(number, 0.1, 0.01))
        figures["proxies"]["encoder"] = name
        (tmp_path / f"{number}.json").write_text(json.dumps(figures))
    show_proxies([tmp_path / "0.json", tmp_path / "1.json"])
    output = capsys.readouterr().out
    assert all(name[-5:] in output for name in names)
    assert "none; needs 8 encoders" in output


def test_figures_of_unseen_products_are_shown_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads(point(0, 0.1, 0.01))
    figures["proxies"] |= {"next_click_hit_rate_unseen": 0.07, "same_product_recall_unseen": None}
    (tmp_path / "0.json").write_text(json.dumps(figures))
    show_proxies([tmp_path / "0.json"])
    output = capsys.readouterr().out
    assert "0.100" in output
    assert "new 0.070" in output


def test_only_products_of_the_given_rows_are_queries() -> None:
    truth = make_truth([2] * 200)
    vectors = np.random.default_rng(3).normal(size=(400, 8)).astype(np.float32)
    vectors[100:200:2] = vectors[101:200:2]  # the sellers of the designs 50 to 99 show the same
    data = with_vectors(DATA, vectors)
    trained = pa.chunked_array([[f"p{number}" for number in (*range(100), *range(200, 400))]])
    rows = proxies.find_unseen(data, trained)
    assert set(truth.product[rows].tolist()) == set(range(100, 200)) & set(truth.product.tolist())
    assert proxies.same_product_recall(data, truth, rows) == 1.0
    assert proxies.same_product_recall(data, truth) < 0.5


def test_a_file_without_proxies_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"rows": {}, "comparisons": []}')
    with pytest.raises(VitrineError, match=r"old\.json: not a JSON file"):
        proxies.read_points([tmp_path / "old.json"])
