"""Images as bytes in the day's table: memory stays bounded, whatever they are in all."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError
from feature_repo.offline import delta, input_files
from producers.catalogue import ingest as catalogue
from tests.producers.catalogue.shop import NOW

INGEST_IN_SMALL_BLOCKS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa
from feature_repo import config
from feature_repo.offline import input_files
from producers.catalogue.ingest import ingest_products

input_files.BLOCK_BYTES = 1 << 20
summary = ingest_products(config.load(Path(sys.argv[1])), Path(sys.argv[2]), datetime(2026, 1, 10, tzinfo=UTC))
print(summary.new, pa.default_memory_pool().max_memory())
"""
"""Prints the number of new products, and the most bytes that Arrow held."""
INGEST = """
import re, sys, threading
from datetime import UTC, datetime
from pathlib import Path
from feature_repo import config
from producers.catalogue.ingest import ingest_products

def read_memory():  # of the process itself, without mapped files, in MB
    return int(re.search(r"RssAnon:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

peak, ended = 0, threading.Event()
def watch():
    global peak
    while not ended.wait(0.005):
        peak = max(peak, read_memory())

before = read_memory()
thread = threading.Thread(target=watch)
thread.start()
now = datetime(2026, 1, 10, tzinfo=UTC)
summary = ingest_products(config.load(Path(sys.argv[1])), Path(sys.argv[2]), now)
ended.set()
thread.join()
print(summary.new, peak - before)
"""
"""Prints the number of new products, and by how many MB the process grew."""


def write_images(folder: Path, count: int, size: int, *, row_group_size: int | None = None) -> Path:
    """Write a table whose `count` images are `size` random bytes each, in a column of large_binary."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "product_id": [f"p{row}" for row in range(count)],
        "title": ["dress"] * count,
        "image": pa.array([draw_image(row, size) for row in range(count)], pa.large_binary()),
        "category": ["clothes"] * count,
        "brand": ["Acme"] * count,
        "price": [9.5] * count,
        "updated_at": [datetime(2026, 1, 2, tzinfo=UTC)] * count,
    }
    pq.write_table(pa.table(columns), folder / "products.parquet", row_group_size=row_group_size)
    return folder / "products.parquet"


def draw_image(row: int, size: int) -> bytes:
    return np.random.default_rng(row).bytes(size)


def read_stored(store: Settings) -> dict[str, bytes]:
    rows = delta.read(store.table(schema.CATALOGUE_TABLE), ["product_id", "image_bytes"])
    return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def ingest_all(store: Settings, products: Path) -> int:
    return catalogue.ingest_products(store, products, NOW).new


def test_a_block_of_images_is_in_memory_at_a_time(store: Settings) -> None:
    products = write_images(store.file.parent / "shop", 2000, 20_000, row_group_size=100)
    program = [sys.executable, "-c", INGEST_IN_SMALL_BLOCKS, str(store.file), str(products)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    new, peak_bytes = map(int, done.stdout.split())
    assert new == 2000
    assert 0 < peak_bytes < 20 << 20  # of 40 MB of images
    assert read_stored(store) == {f"p{row}": draw_image(row, 20_000) for row in range(2000)}
    assert ingest_all(store, products) == 0


def test_images_in_the_files_of_a_folder_are_those_of_one_file(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 3000)
    whole = pq.read_table(write_images(store.file.parent, 40, 500))
    folder = store.file.parent / "shop"
    for name, part in (("b", whole.slice(25)), ("a", whole.slice(0, 25))):
        (folder / f"day={name}").mkdir(parents=True)
        pq.write_table(part, folder / f"day={name}" / "part.parquet")
    blocks = list(input_files.read_blocks(folder, 7))
    assert max(map(len, blocks)) <= 6
    assert pa.concat_tables(blocks).drop_columns("day").equals(whole)
    assert pa.concat_tables(blocks)["day"].to_pylist() == ["a"] * 25 + ["b"] * 15
    assert ingest_all(store, folder) == 40
    assert read_stored(store) == {f"p{row}": draw_image(row, 500) for row in range(40)}


def test_only_changed_images_are_written_and_files_of_a_lost_commit_are_removed(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = write_images(store.file.parent / "shop", 20, 500)
    ingest_all(store, products)
    rows = pq.read_table(products)
    images = [b"another" if row in (3, 17) else image for row, image in enumerate(rows["image"].to_pylist())]
    pq.write_table(rows.set_column(2, "image", pa.array(images, pa.large_binary())), products)
    path = store.table(schema.CATALOGUE_TABLE)
    append = catalogue.append_blocks_if_version

    def lose_first(*arguments: Any) -> int:  # another run commits between the comparison and the commit
        monkeypatch.setattr(catalogue, "append_blocks_if_version", append)
        other = delta.read(path).slice(0, 1)
        delta.append_if_version(path, other, catalogue.STEP, delta.txn_version(path, catalogue.STEP))
        return append(*arguments)

    monkeypatch.setattr(catalogue, "append_blocks_if_version", lose_first)
    assert catalogue.ingest_products(store, products, NOW + timedelta(days=1)).changed == 2
    assert delta.open_dataset(path).count_rows() == 20 + 1 + 2
    assert len(list(path.glob("*.parquet"))) == 3


def test_images_that_change_while_they_are_read_are_refused(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    products = write_images(store.file.parent / "shop", 20, 500)
    append = catalogue.append_blocks_if_version

    def replace_file(*arguments: Any) -> int:
        rows = pq.read_table(products)
        pq.write_table(rows.set_column(2, "image", pa.array([b"x"] * 20, pa.large_binary())), products)
        return append(*arguments)

    monkeypatch.setattr(catalogue, "append_blocks_if_version", replace_file)
    with pytest.raises(InvalidInputError, match="was changed while it was read"):
        ingest_all(store, products)
    assert read_stored(store) == {}
    assert not list(store.table(schema.CATALOGUE_TABLE).glob("*.parquet"))


def test_a_table_of_an_earlier_version_gets_the_columns_that_it_lacks(store: Settings) -> None:
    path = store.table(schema.CATALOGUE_TABLE)
    delta.append(path, schema.CATALOGUE.empty_table().drop_columns(schema.OPTIONAL_PRODUCTS.names))
    assert ingest_all(store, write_images(store.file.parent / "shop", 3, 500)) == 3
    assert delta.open_dataset(path).schema.names == schema.CATALOGUE.names
    assert delta.read(path, ["sales"])["sales"].to_pylist() == [None] * 3


def test_the_log_of_the_table_has_the_bounds_of_times(store: Settings) -> None:
    ingest_all(store, write_images(store.file.parent / "shop", 3, 500))
    files = pa.table(delta.open_table(store.table(schema.CATALOGUE_TABLE)).get_add_actions(flatten=True))
    assert files["num_records"].to_pylist() == [3]
    assert files["min.event_timestamp"].to_pylist() == [datetime(2026, 1, 2, tzinfo=UTC)]
    assert files["max.created_timestamp"].to_pylist() == [NOW]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows the memory of a process")
def test_memory_does_not_grow_with_the_images_of_the_day(store: Settings) -> None:
    grown = []
    for count in (2000, 4000):
        products = write_images(store.file.parent / str(count), count, 100_000)
        program = [sys.executable, "-c", INGEST, str(store.file), str(products)]
        done = subprocess.run(program, check=True, capture_output=True, text=True)
        grown.append(int(done.stdout.split()[1]))
    # The blocks and pages of 100 MB that Arrow writes by default; all images in memory took 1,480 and 2,650 MB.
    assert max(grown) < 700
    assert grown[1] < grown[0] + 150
