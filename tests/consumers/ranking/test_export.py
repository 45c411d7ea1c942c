import json
import re
import shutil
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_svmlight_file

from consumers.ranking import export, lightgbm_ranker
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.content_features import compute_groups
from consumers.ranking.export import FORMATS, SPLITS, export_training_set
from consumers.ranking.impression_dataset import ImpressionDataset
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import small_log
from tests.deployments import ROOT

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
        loader = torch.utils.data.DataLoader(ImpressionDataset(folder, split=part), batch_size=128)
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


@pytest.mark.parametrize("split", SPLITS)
def test_each_libsvm_file_has_the_features_of_its_rows_without_missing_values(folder: Path, split: str) -> None:
    read, labels = load_svmlight_file(
        str(folder / f"tabular-{split}.libsvm"), n_features=len(FEATURES), zero_based=True
    )
    expected = lightgbm_ranker.to_matrix(FEATURES, split == SPLIT)
    np.testing.assert_array_equal(labels, DATA.clicked[split == SPLIT])
    np.testing.assert_allclose(read.toarray(), np.nan_to_num(expected), rtol=1e-6)
    assert read.nnz == (~np.isnan(expected)).sum()


def test_features_json_names_and_explains_every_feature(folder: Path) -> None:
    described = json.loads((folder / "features.json").read_text())
    assert described["features"] == list(FEATURES)
    assert "user_id" in described["categories"]
    assert described["rows"] == {"train": 400, "validation": 100, "test": 100}
    assert described["meaning"]["context_0"] == "column `child_age_months` of the log"
    assert all(described["meaning"][name] for name in FEATURES)


@pytest.mark.parametrize("split", SPLITS)
def test_lightgbm_reads_the_binary_file_of_each_split_with_the_recorded_parameters(folder: Path, split: str) -> None:
    parameters = json.loads((folder / "features.json").read_text())["lightgbm"]
    read = lightgbm.Dataset(folder / f"tabular-{split}.bin", params=parameters).construct()
    assert read.num_data() == (split == SPLIT).sum()
    np.testing.assert_array_equal(read.get_label(), DATA.clicked[split == SPLIT])
    assert read.get_feature_name() == list(FEATURES)


def test_lightgbm_trains_the_same_model_from_the_binary_file(folder: Path) -> None:
    settings = lightgbm_ranker.SETTINGS | {"seed": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(folder / "tabular-train.bin", params=settings), 5)
    is_train = SPLIT == "train"
    itself = lightgbm_ranker.bin_features(FEATURES, DATA.clicked, is_train, ~is_train)
    expected = lightgbm.train(settings, itself.train, 5)
    np.testing.assert_array_equal(booster.predict(itself.scored), expected.predict(itself.scored))


def test_a_split_without_rows_has_no_file(tmp_path: Path) -> None:
    split = np.where(np.arange(600) < 400, "train", "test")
    files = export_training_set(DATA, split, FEATURES, tmp_path / "set", ["lightgbm", "libsvm"], lambda what: None)
    assert [name for name in files if "validation" in name] == []
    assert {"tabular-train.bin", "tabular-test.bin", "tabular-train.libsvm", "tabular-test.libsvm"} < files.keys()


def test_large_libsvm_files_are_announced_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    few = dict(list(FEATURES.items())[:3])
    export_training_set(DATA, SPLIT, few, tmp_path / "small", ["libsvm"], lambda what: None)
    assert not caplog.records
    monkeypatch.setattr(export, "LARGE_LIBSVM_BYTES", 5_000)
    files = export_training_set(DATA, SPLIT, few, tmp_path / "large", ["libsvm"], lambda what: None)
    size = sum(size for name, size in files.items() if "libsvm" in name)
    assert f"about {size:,} bytes of text for 600 rows" in caplog.text


def test_the_dataset_has_what_the_trees_get(folder: Path) -> None:
    """Ids and other categories as codes, numbers as they are, and tags, which are texts, as codes."""
    dataset = ImpressionDataset(str(folder))
    assert isinstance(dataset, torch.utils.data.Dataset)
    batch = dataset.batch(range(600))
    for name, values in FEATURES.items():
        is_category = np.issubdtype(values.dtype, np.integer)
        assert batch[name].dtype == (torch.int64 if is_category else torch.float32)
        np.testing.assert_array_equal(batch[name].numpy(), values)
        if is_category:
            assert dataset.category_sizes[name] == values.max() + 1
    users = dataset.vocabularies["user_id"]
    assert [users[code] for code in batch["user_id"]] == DATA.impressions.column("user_id").to_pylist()
    ages = [*dataset.vocabularies["product_tags__child_age"], None]
    shown = DATA.views["product_tags"].strings("child_age").to_pylist()
    assert [ages[code] for code in batch["product_tags__child_age"]] == shown


def test_codes_are_the_same_in_every_split(folder: Path) -> None:
    whole, test = ImpressionDataset(folder), ImpressionDataset(folder, split="test", columns=["user_id", "brand"])
    rows = np.flatnonzero(SPLIT == "test")
    for name in ("user_id", "brand"):
        assert torch.equal(test.batch(range(100))[name], whole.batch(rows)[name])
        assert test.category_sizes[name] == whole.category_sizes[name]


def test_an_export_of_version_0_2_is_read_without_features(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    (tmp_path / "old" / "features.parquet").unlink()
    assert export.ImpressionDataset is ImpressionDataset
    item = ImpressionDataset(tmp_path / "old")[0]
    assert "user_id" not in item
    assert "product_catalogue__price" in item


def test_the_examples_of_the_documentation_run(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = small_log(rows=600)
    features = FEATURES | compute_groups(data, None)["affinity"]
    export_training_set(data, SPLIT, features, tmp_path / "training", ["parquet", "lightgbm"], lambda what: None)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "how-to" / "export-a-training-set.md").read_text()
    trees, network = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(trees, names)
    assert len(names["scores"]) == 100
    rows = lightgbm_ranker.to_matrix(features, SPLIT == "test")
    np.testing.assert_array_equal(names["scores"], names["booster"].predict(rows))
    exec(network, names)
    assert names["user"].shape[1] == 8
    assert names["vector"].shape[1] == 8


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
