"""What all importers have in common, tested on a few invented rows in the format of each set."""

from pathlib import Path

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from feature_repo import config, schema
from feature_repo.errors import VitrineError
from feature_repo.images.decoding import open_image
from feature_repo.offline.impressions import read_impressions
from producers import cli
from producers.catalogue.ingest import ingest_products
from producers.datasets.imports import mum_baby
from producers.datasets.imports.registry import READERS, import_dataset
from tests.producers.datasets.imports.outcome import NOW, imported, rows
from tests.producers.datasets.imports.tiny import MAKERS


def test_every_importer_is_tested() -> None:
    assert set(READERS) == set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_an_import_passes_the_checks_of_the_catalogue_and_of_impressions(name: str, tmp_path: Path) -> None:
    output = imported(name, tmp_path)
    (tmp_path / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    if name != "mum_baby":
        table = pyarrow.parquet.read_table(output / "products.parquet")
        others = [name for name in schema.PRODUCTS.names if name != "image"]
        assert table.select(others).schema == pyarrow.schema([schema.PRODUCTS.field(name) for name in others])
        summary = ingest_products(config.load(tmp_path / "feature_store.yaml"), output / "products.parquet", NOW)
        assert (summary.new, summary.refused, summary.repairs) == (summary.read, (), ())
        for image in table["image"].drop_null().to_pylist():
            assert open_image(image if isinstance(image, bytes) else Path(image)).size == (4, 4)
    if name in ("mum_baby", "movielens"):
        read = read_impressions(output / "impressions.parquet", now=NOW)
        assert (read.table.num_rows, read.refused, read.notes) == (read.read, [], [])


@pytest.mark.parametrize("name", MAKERS)
def test_every_label_is_a_known_value_of_a_tag(name: str, tmp_path: Path) -> None:
    output = imported(name, tmp_path)
    if (output / "labels.parquet").exists():
        allowed = {"child_age": schema.CHILD_AGES, "child_gender": schema.CHILD_GENDERS}
        for row in rows(output, "labels"):
            assert row["tag"] in schema.TAGS
            assert row["value"] in allowed.get(row["tag"], [row["value"]])
            assert row["group"]


def test_a_second_import_replaces_the_first(tmp_path: Path) -> None:
    imported("movielens", tmp_path)
    MAKERS["abt_buy"](tmp_path / "other")
    import_dataset("abt_buy", tmp_path / "other", tmp_path / "out", NOW)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "pairs.parquet",
        "products.parquet",
        "refused.parquet",
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_without_the_sets_files_raises_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="no such file"):
        import_dataset(name, tmp_path, tmp_path / "out", NOW)
    assert not (tmp_path / "out").exists()


def test_an_unknown_set_and_a_missing_folder_raise_one_line(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="no data set `mnist` is known; expected one of flipkart_1050, "):
        import_dataset("mnist", tmp_path, tmp_path / "out", NOW)
    with pytest.raises(VitrineError, match="nowhere: no such folder"):
        import_dataset("grocery", tmp_path / "nowhere", tmp_path / "out", NOW)


def test_the_command_prints_what_it_wrote_and_refused(tmp_path: Path) -> None:
    MAKERS["mum_baby"](tmp_path / "from")
    arguments = ["import", "mum_baby", "--from", str(tmp_path / "from"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0
    assert "4 impressions, 4 users, 8 refused or repaired" in result.output
    assert f"1: {mum_baby.WHOLESALE}" in result.output
