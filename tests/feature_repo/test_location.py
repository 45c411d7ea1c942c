"""Locations of tables: paths, and URLs of buckets with their storage options."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow.fs import AzureFileSystem

from feature_repo import config
from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.location import BucketPath, parse_location
from feature_repo.offline import delta, delta_blocks
from feature_repo.offline.storage import open_storage
from producers import maintenance
from tests.servers import free_port

FOLDER = Path("/srv/vitrine")


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("../data/offline", FOLDER, Path("/srv/data/offline")),
        ("/data", FOLDER, Path("/data")),
        ("s3://shop/a/b/", FOLDER, BucketPath("s3://shop/a/b")),
        ("product_tags", BucketPath("gs://shop"), BucketPath("gs://shop/product_tags")),
        (".", BucketPath("az://shop/x"), BucketPath("az://shop/x")),
        ("/data", BucketPath("az://shop/x"), Path("/data")),
    ],
)
def test_a_path_or_url_is_resolved_against_a_folder_or_prefix(text: str, folder: Any, expected: object) -> None:
    assert parse_location(text, folder) == expected


@pytest.mark.parametrize(
    ("text", "expected", "account"),
    [
        ("s3a://shop/a", "s3://shop/a", None),
        ("S3://shop/a", "s3://shop/a", None),
        ("gcs://shop/a", "gs://shop/a", None),
        ("gs://my.shop-1_a/a=1/", "gs://my.shop-1_a/a=1", None),
        ("abfs://box/a", "az://box/a", None),
        ("abfss://box/a/b/", "az://box/a/b", None),
        ("azure://box", "az://box", None),
        ("adl://box/a", "az://box/a", None),
        ("abfss://box@acc1.dfs.core.windows.net/a/b", "az://box/a/b", "acc1"),
        ("abfs://box@acc1.blob.core.windows.net", "az://box", "acc1"),
        ("abfss://acc1.blob.core.windows.net/box/a", "az://box/a", "acc1"),
    ],
)
def test_every_spelling_of_a_bucket_is_one_location(text: str, expected: str, account: str | None) -> None:
    location = parse_location(text, FOLDER)
    assert isinstance(location, BucketPath)
    assert location.url == expected
    assert location.options == ({} if account is None else {"AZURE_STORAGE_ACCOUNT_NAME": account})
    if account is not None:
        assert parse_location(text, FOLDER, dict(location.options)) == location
        file_system = open_storage(location).filesystem.base_fs
        assert isinstance(file_system, AzureFileSystem)


def test_a_prefix_has_the_parts_of_a_path_and_never_shows_its_secrets() -> None:
    tables = parse_location("s3://shop/a", FOLDER, {"aws_secret_access_key": "hush", "AWS_ACCESS_KEY_ID": "me"})
    assert isinstance(tables, BucketPath)
    table = tables / "t"
    assert (table.name, str(table), table.parent, table.parent.parent) == ("t", "s3://shop/a/t", tables, tables.parent)
    assert table.parent.parent.parent == BucketPath("s3://shop")
    assert table.options == {"AWS_SECRET_ACCESS_KEY": "hush", "AWS_ACCESS_KEY_ID": "me"}
    assert "hush" not in f"{table} {table!r} {open_storage(table)!r}"
    assert pickle.loads(pickle.dumps(open_storage(table))).uri == "s3://shop/a/t"


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"path": "hdfs://shop/a", "local_path": "l"}, "s3://, gs://, az://"),
        ({"path": "https://a.blob.core.windows.net/c", "local_path": "l"}, "expected a folder, or a bucket as s3://"),
        ({"path": "abfss://c@a.dfs.core.chinacloudapi.cn/t", "local_path": "l"}, "AZURE_STORAGE_ENDPOINT"),
        ({"path": "abfss://c@a/t", "local_path": "l"}, "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"),
        ({"path": "abfss://c:hush@a.dfs.core.windows.net/t", "local_path": "l"}, "credentials belong in"),
        ({"path": "abfss://a.blob.core.windows.net", "local_path": "l"}, "expected az://BUCKET/PREFIX"),
        ({"path": "gs://me@shop/a", "local_path": "l"}, "credentials belong in storage_options"),
        ({"path": "gs://", "local_path": "l"}, "expected gs://BUCKET/PREFIX"),
        (
            {
                "path": "abfss://c@first.dfs.core.windows.net/t",
                "local_path": "l",
                "storage_options": {"AZURE_STORAGE_ACCOUNT_NAME": "second"},
            },
            "is in the account first, and storage_options has AZURE_STORAGE_ACCOUNT_NAME second",
        ),
        ({"path": "s3://me:hush@shop/a", "local_path": "l"}, "credentials belong in storage_options"),
        ({"path": "s3://shop/a?key=hush", "local_path": "l"}, "expected s3://BUCKET/PREFIX"),
        ({"path": "s3://shop/../a", "local_path": "l"}, "expected s3://BUCKET/PREFIX"),
        ({"path": "s3://", "local_path": "l"}, "expected s3://BUCKET/PREFIX"),
        ({"path": "s3://shop", "local_path": "l", "storage_options": {"HUSH": "hush"}}, "`HUSH`; s3:// takes AWS_"),
        ({"path": "s3://shop", "local_path": "l", "storage_options": {"AWS_REGION": None}}, "AWS_REGION is None"),
        ({"path": "s3://shop", "local_path": "l", "storage_options": {"AWS_REGION": "${UNSET_HERE}"}}, "is not set"),
        ({"path": "s3://shop", "local_path": "l", "storage_options": "x"}, "storage_options is None"),
        ({"path": "s3://shop"}, "offline_store.local_path must name a folder"),
        ({"path": "s3://shop", "local_path": "s3://other"}, "offline_store.local_path must name a folder"),
        ({"path": "tables", "local_path": "l"}, "local_path is for tables in a bucket"),
        ({"path": "tables", "storage_options": {"AWS_REGION": "x"}}, "storage_options belong to the URL"),
        ({"path": "tables", "pictures": "pictures"}, "expected the URL of a prefix"),
        ({"path": "tables", "pictures": "s3://me:hush@shop/a"}, "credentials belong in storage_options"),
        ({"path": "tables", "pictures": 7}, "offline_store.pictures is 7"),
        ({"path": "tables", "pictures": "gs://shop", "storage_options": {"AWS_REGION": "x"}}, "gs:// takes none"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_without_its_secrets(
    tmp_path: Path, store: dict[str, Any], message: str
) -> None:
    file = tmp_path / "feature_store.yaml"
    file.write_text(yaml.safe_dump({"project": "shop", "offline_store": store}))
    with pytest.raises(InvalidInputError) as refused:
        config.load(file)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_bucket_that_does_not_answer_is_reported_in_one_line(tmp_path: Path) -> None:
    options = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_REGION": "x", "AWS_ALLOW_HTTP": "true"}
    table = BucketPath("s3://shop/t", options | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(UnavailableError, match=r"s3://shop/t does not answer .*onnect.*; check the address") as error:
        delta.exists(table)
    assert "\n" not in str(error.value)
    assert "hush" not in str(error.value)


def test_pictures_are_written_to_a_bucket_block_by_block_and_a_failure_leaves_no_file(bucket: BucketPath) -> None:
    blocks = [pa.table({"product_id": [str(number)], "image": [bytes(1000)]}) for number in range(3)]
    columns = blocks[0].schema

    def fail() -> Any:
        yield blocks[0]
        raise RuntimeError("no more pictures")

    with pytest.raises(RuntimeError, match="no more pictures"):
        delta_blocks.append_blocks_if_version(bucket / "t", columns, fail(), "catalogue", 0)
    assert [name for name in list_objects(bucket / "t") if name.endswith(".parquet")] == []
    assert delta_blocks.append_blocks_if_version(bucket / "t", columns, blocks, "catalogue", 0) == 1
    assert delta.read(bucket / "t").sort_by("product_id").equals(pa.concat_tables(blocks))


def test_tables_of_a_bucket_are_found_forgotten_and_vacuumed(tmp_path: Path, bucket: BucketPath) -> None:
    from datetime import UTC, datetime, timedelta

    store = {"path": bucket.url, "local_path": "local", "storage_options": dict(bucket.options)}
    file = tmp_path / "feature_store.yaml"
    file.write_text(yaml.safe_dump({"project": "shop", "offline_store": store}))
    settings = config.load(file)
    for part in (["a", "b"], ["a", "c"]):
        delta.append(settings.table("clicks"), pa.table({"product_id": part, "clicks": [1, 2]}))
    assert maintenance.forget(settings, products=["a"], users=[]).offline == {"clicks": 2}
    (summary,) = maintenance.vacuum(settings, now=datetime.now(UTC), grace=timedelta(0))
    assert (summary.table, summary.files_removed >= 2) == ("clicks", True)
    assert sorted(delta.read(settings.table("clicks"))["product_id"].to_pylist()) == ["b", "c"]


def list_objects(location: BucketPath) -> list[str]:
    from pyarrow.fs import FileSelector

    filesystem = open_storage(location).filesystem
    return [info.path for info in filesystem.get_file_info(FileSelector("", recursive=True))]
