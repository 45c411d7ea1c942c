"""The whole chain with its tables in a bucket: every table, and what is online, equals that of tables on disk."""

from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.location import BucketPath
from feature_repo.offline import delta
from tests.deployments import STEPS, TABLES, configure, run_command

ENDS = "2026-01-21T00:00:00"
SHOP = "produce shop --output shop --products {products} --users 100 --days 20 --impressions-per-user 50 --seed 0"
ENCODER = "produce encoder --data shop --output encoder --pairs 128 --align shop/impressions.parquet --test-days 10"
MATERIALIZE = ("feast apply", f"feast materialize-incremental {ENDS}")


def configure_bucket(folder: Path, bucket: BucketPath) -> Settings:
    """Write a feature_store.yaml whose tables are in the bucket, and everything else in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = configure(folder).file
    content = yaml.safe_load(file.read_text())
    content["offline_store"] |= {
        "path": bucket.url,
        "storage_options": dict(bucket.options),
        "local_path": str(folder / "local"),
    }
    file.write_text(yaml.safe_dump(content))
    return config.load(file)


def read_sorted(settings: Settings, name: str) -> pa.Table:
    """Return a table without the times at which its rows were created, in a fixed order."""
    table = delta.read(settings.table(name))
    table = table.drop_columns([column for column in table.column_names if column == "created_timestamp"])
    keys = [column.name for column in table.schema if not pa.types.is_nested(column.type)]
    return table.sort_by([(key, "ascending") for key in keys])


@pytest.mark.slow
def test_the_chain_with_tables_in_a_bucket_writes_the_tables_of_one_on_disk(tmp_path: Path, bucket: BucketPath) -> None:
    on_disk, in_bucket = configure(tmp_path), configure_bucket(tmp_path / "bucket", bucket)
    for line in (SHOP.format(products=2_000), ENCODER):
        run_command(line, tmp_path, on_disk)
    for store in (on_disk, in_bucket):
        for line in (*STEPS, *MATERIALIZE):
            run_command(line, tmp_path, store)
    for name in TABLES:
        actual, expected = read_sorted(in_bucket, name), read_sorted(on_disk, name)
        assert actual.schema == expected.schema, name
        assert [column for column in expected.column_names if not actual[column].equals(expected[column])] == [], name
    for line in ("consume consistency", "produce vacuum --grace-hours 0", "consume consistency"):
        run_command(line, tmp_path, in_bucket)
    assert not list((tmp_path / "bucket").rglob("*.parquet"))
