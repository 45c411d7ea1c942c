"""Nothing that a deployment keeps names a forgotten product or user, but for what the documentation says."""

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, LocalFileSystem, SubTreeFileSystem, copy_files

from feature_repo import schema
from feature_repo.bucket import open_filesystem
from feature_repo.config import Settings
from feature_repo.index import saved_searches
from feature_repo.index.saved_searches import SavedSearch
from feature_repo.location import BucketPath
from feature_repo.offline import delta
from feature_repo.online.open_store import open_configured_table
from tests.deployments import configure, run_in_process, unpack
from tests.test_bucket import configure_bucket

STEPS = (
    "produce catalogue --products shop/products.parquet",
    "produce embeddings --encoder encoder",
    "produce neighbours --impressions shop/impressions.parquet",
    "produce index",
)
"""Steps that write what the deployment of version 0.1.0 has not."""
FURTHER_TABLES = {
    schema.ACTIVE_TABLE: schema.PRODUCT_ACTIVE,
    schema.PICTURE_TABLE: schema.PRODUCT_PICTURE,
    schema.PAIR_TABLE: schema.PRODUCT_PAIR,
    schema.PAIR_LABEL_TABLE: schema.PAIR_LABEL,
    schema.GROUP_TABLE: schema.PRODUCT_GROUP,
    schema.GROUP_JOURNAL_TABLE: schema.PRODUCT_GROUP_JOURNAL,
    schema.CAPTION_TABLE: schema.PRODUCT_CAPTION,
    schema.ENCODER_TRAINING_TABLE: schema.ENCODER_TRAINING,
    schema.FIRST_FEATURE_TABLE: schema.PRODUCT_FIRST_FEATURE,
    schema.QUARANTINE_TABLE: schema.QUARANTINE,
}
"""Tables of steps that the test does not run; rows of the products are added to them."""
ID_COLUMNS = (schema.PRODUCT_ID, schema.PRODUCT_ID_L, schema.PRODUCT_ID_R, "row_id")
INPUTS = ("shop", "encoder", "online_values.json", "training_join.parquet", "tags.json", "lift.json", "freshness.json")
"""Inputs of the deployment and what tests compare with; a deployment does not write them."""
NAMED_STILL = {"user_interest": "ids in the last clicks of other users", "online": "pages that LMDB has freed"}
"""What still names the product, as docs/how-to/own-data.md says."""


def make_row(columns: pa.Schema, product: str) -> pa.Table:
    """Return a row of a product with nulls where nothing else is needed."""
    values = {}
    for column in columns:
        is_time = column.name in (schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP)
        value = product if column.name in ID_COLUMNS else datetime(2026, 1, 5, tzinfo=UTC) if is_time else None
        values[column.name] = pa.array([value], column.type)
    return pa.table(values, schema=columns)


def read_contents(filesystem: SubTreeFileSystem, name: str) -> Iterator[bytes]:
    """Yield the bytes of a file, and what is compressed in it."""
    with filesystem.open_input_file(name) as file:
        yield file.read()
        if name.endswith(".parquet"):
            yield repr(pq.read_table(file).to_pylist()).encode()
        elif name.endswith(".npz"):
            archive = zipfile.ZipFile(file)
            yield from (archive.read(member) for member in archive.namelist())


def find_files(filesystem: SubTreeFileSystem, names: list[str]) -> set[str]:
    """Return the files, by the folder that a user knows, that name one of the ids."""
    found = set()
    for info in filesystem.get_file_info(FileSelector("", recursive=True)):
        folder = info.path.removeprefix("offline/").removeprefix("local/").split("/")[0]
        if info.is_file and folder not in INPUTS:
            contents = read_contents(filesystem, info.path)
            if any(name.encode() in content for content in contents for name in names):
                found.add(folder)
    return found


def find_all(folder: Path, store: Settings, names: list[str]) -> set[str]:
    found = find_files(SubTreeFileSystem(str(folder), LocalFileSystem()), names)
    return found | (
        find_files(open_filesystem(store.offline), names) if isinstance(store.offline, BucketPath) else set()
    )


@pytest.mark.slow
@pytest.mark.parametrize("tables", ["disk", "bucket"])
def test_no_file_names_what_was_forgotten(tmp_path: Path, request: pytest.FixtureRequest, tables: str) -> None:
    unpack(tmp_path)
    store = configure(tmp_path)
    if tables == "bucket":
        bucket = request.getfixturevalue("bucket")
        for table in ("product_catalogue", "product_embedding", "product_tags", "user_interest"):
            source = SubTreeFileSystem(str(tmp_path / "offline" / table), LocalFileSystem())
            target = open_filesystem(bucket / table)
            copy_files("", "", source_filesystem=source, destination_filesystem=target)
        (tmp_path / "offline").rename(tmp_path / "shop" / "moved")
        store = configure_bucket(tmp_path, bucket)
    for line in STEPS:
        run_in_process(line, tmp_path, store)
    clicks = pq.read_table(tmp_path / "shop" / "impressions.parquet").filter(pc.field("clicked") == 1)
    product, user = clicks["product_id"][0].as_py(), clicks["user_id"][0].as_py()
    for name, columns in FURTHER_TABLES.items():
        delta.append(store.table(name), make_row(columns, product))
    search = SavedSearch("toys", "toys", {}, (product, "p00001"), "2026-01-05T00:00:00+00:00")
    saved_searches.write_search(store.local, search)
    written = find_all(tmp_path, store, [product])
    assert written >= {*FURTHER_TABLES, "product_catalogue", "product_embedding", "index", "searches", "online"}

    run_in_process(f"produce forget --product {product} --user {user}", tmp_path, store)
    run_in_process("produce vacuum --grace-hours 0", tmp_path, store)
    assert find_all(tmp_path, store, [product, user]) <= set(NAMED_STILL)
    online = open_configured_table(store)
    assert online is not None
    assert online.count_entities({schema.PRODUCT_ID: [product], schema.USER_ID: [user]}) == {}
