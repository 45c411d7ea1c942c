import json
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_svmlight_file

from consumers.ranking import lightgbm_ranker
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.export import FORMATS, ImpressionDataset, export_training_set
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import small_log

DATA = small_log(rows=600)
FEATURES = compute_baseline(DATA)
SPLIT = np.where(np.arange(600) < 400, "train", np.where(np.arange(600) < 500, "validation", "test"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "set"
    export_training_set(DATA, SPLIT, FEATURES, out, FORMATS, lambda what: None)
    return out


def test_the_dataset_returns_every_impression_in_order_with_the_vector_of_its_time(folder: Path) -> None:
    dataset = ImpressionDataset(folder, columns=["product_embedding__fused_vector", "product_catalogue__price"])
    assert len(dataset) == 600
    view = DATA.views["product_embedding"]
    vectors = view.vectors("fused_vector")
    for i in (0, 17, 599):
        expected = vectors[view.row_index[i]] if view.row_index[i] >= 0 else np.full(8, np.nan, np.float32)
        np.testing.assert_array_equal(dataset[i]["product_embedding__fused_vector"].numpy(), expected)
        assert dataset[i]["clicked"] == DATA.clicked[i]
    price = torch.stack([dataset[i]["product_catalogue__price"] for i in range(600)]).numpy()
    np.testing.assert_array_equal(price, DATA.views["product_catalogue"].numbers("price"))


def test_a_data_loader_reads_each_split_in_batches(folder: Path) -> None:
    sizes = {}
    for part in ("train", "validation", "test"):
        loader = torch.utils.data.DataLoader(ImpressionDataset(folder, split=part), batch_size=128)  # type: ignore[arg-type]
        clicks = [batch["clicked"] for batch in loader]
        sizes[part] = len(torch.cat(clicks))
        np.testing.assert_array_equal(torch.cat(clicks).numpy(), DATA.clicked[part == SPLIT])
    assert sizes == {"train": 400, "validation": 100, "test": 100}


def test_each_vector_is_stored_once(folder: Path) -> None:
    versions = pq.read_table(folder / "versions" / "product_embedding.parquet")
    row = DATA.views["product_embedding"].row_index
    assert len(versions) == len(np.unique(row[row >= 0])) < 600
    rows = pq.read_table(folder / "impressions.parquet").column("product_embedding__row")
    assert rows.null_count == (row < 0).sum()


def test_libsvm_has_the_features_without_missing_values(folder: Path) -> None:
    read, labels = load_svmlight_file(str(folder / "tabular.libsvm"), n_features=len(FEATURES), zero_based=True)
    every = np.ones(600, bool)
    expected = lightgbm_ranker.to_matrix(FEATURES, every)
    np.testing.assert_array_equal(labels, DATA.clicked)
    np.testing.assert_allclose(read.toarray(), np.nan_to_num(expected), rtol=1e-6)
    assert read.nnz == (~np.isnan(expected)).sum()
    names = json.loads((folder / "features.json").read_text())
    assert names["features"] == list(FEATURES)
    assert "user_id" in names["categories"]


def test_lightgbm_trains_the_same_model_from_the_binary_file(folder: Path) -> None:
    settings = lightgbm_ranker.SETTINGS | {"seed": 1}
    read = lightgbm.Dataset(str(folder / "tabular.bin"), params=settings)
    booster = lightgbm.train(settings, read, num_boost_round=5)
    every = np.ones(600, bool)
    itself = lightgbm_ranker.bin_features(FEATURES, DATA.clicked, every, ~every).train
    expected = lightgbm.train(settings, itself, num_boost_round=5)
    rows = lightgbm_ranker.to_matrix(FEATURES, every)
    np.testing.assert_array_equal(booster.predict(rows), expected.predict(rows))


def test_other_folders_are_not_overwritten_and_unknown_formats_and_columns_are_named(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("a thesis")
    with pytest.raises(VitrineError, match="something other than an exported training set"):
        export_training_set(DATA, SPLIT, FEATURES, tmp_path, FORMATS, lambda what: None)
    with pytest.raises(VitrineError, match="no format tfrecord; there are: parquet, libsvm, lightgbm"):
        export_training_set(DATA, SPLIT, FEATURES, tmp_path / "new", ["tfrecord"], lambda what: None)
    with pytest.raises(VitrineError, match="no column product_tags__colour"):
        ImpressionDataset(folder, columns=["product_tags__colour"])
