"""Products, impressions and pictures made by mutation, through the whole commands: every row is taken or named.

Seeds are parameters: FUZZ_SEEDS=20 in the environment runs as many.
"""

import csv
import io
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from feature_repo.arrow import text
from feature_repo.config import Settings
from feature_repo.offline import delta, impressions, quarantine
from tests.deployments import clean_environment, configure

ROWS = 2_000
SEEDS = range(int(os.environ.get("FUZZ_SEEDS", "2")))
START = datetime(2026, 1, 1, tzinfo=UTC)
ODD_TEXTS = (
    *("", " ", "\u200b", "\ufeff", "\xa0", "\x00", "\t", "\r", "nan", "NaN", "null", "None", "-", "0", "-1", "inf"),
    *(
        "1e308",
        "1e400",
        "1,690.00",
        "¥59.00",
        "1.299",
        "９９",
        "=1+1",
        "<b>",
        "&amp;",
        "&#0;",
        "'",
        "../x",
        "\\",
        "a" * 5_000,
    ),
    *("2026-02-30", "1767225600", "1767225600000", "9999-12-31T23:59:59Z", "0001-01-01", "2026-01-01 00:00:00+08"),
    *("👩‍👧", "e\u0301", "服装> 裤子 ", ">>", "true", "guest", "http://[", "file:///etc/passwd", "\ud7ff\uffff"),
)


def mutate_text(value: str, chance: random.Random) -> str:
    """Return the text with one random change, or another text."""
    at = chance.randrange(len(value) + 1)
    change: Callable[[], str] = chance.choice(
        [
            lambda: chance.choice(ODD_TEXTS),
            lambda: value[:at],
            lambda: value[:at] + chance.choice(ODD_TEXTS) + value[at:],
            lambda: value[:at] + chr(chance.choice([*range(1, 0x300), *range(0x4E00, 0x4E40), 0x1F600])) + value[at:],
            lambda: value * 2,
            lambda: value.swapcase(),
        ]
    )
    return change()


def mutate_rows(rows: list[list[str]], chance: random.Random, share: float) -> list[list[str]]:
    """Return the rows with cells changed in a share of them; some rows are repeated with another cell."""
    result = []
    for row in rows:
        row = list(row)
        while chance.random() < share:
            column = chance.randrange(len(row))
            row[column] = mutate_text(row[column], chance)
        result.append(row)
    return result


def write_csv(
    file: Path, header: Sequence[str], rows: list[list[str]], chance: random.Random, ragged: float
) -> dict[int, str]:
    """Write a CSV file; a share of the rows loses or gains a field, so that they do not have the header's number.

    Returns:
        Index of each such row -> what it must be called, by its line in the file. A row with a carriage return that
        is not in quotes is among them.
    """
    names, lines = {}, 2
    with file.open("w", newline="", encoding="utf-8") as opened:
        opened.write(",".join(header) + "\n")
        for index, row in enumerate(rows):
            is_ragged = chance.random() < ragged
            if is_ragged:
                row = chance.choice([row[:-2], [*row, "more"]])
            if is_ragged or "\r" in "".join(row):
                names[index] = f"line {lines}"
            record = io.StringIO()
            csv.writer(record, lineterminator="\n").writerow(row)
            opened.write(record.getvalue())
            lines += record.getvalue().count("\n")
    return names


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Return the bytes with some changed, removed, repeated or added."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        at = chance.randrange(len(data) or 1)
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 200)]
        elif kind == 2:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        elif chance.random() < 0.2:
            del data[at:]
    return bytes(data)


def run(folder: Path, store: Settings, *arguments: str) -> str:
    """Run `produce`; return what it printed. It must end with 0 or 1 and without a traceback."""
    command = [str(Path(sys.executable).parent / "produce"), *arguments, "--store", str(store.file)]
    result = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stderr[-3_000:]
    assert "Traceback" not in result.stdout + result.stderr, result.stderr[-3_000:]
    return result.stdout + result.stderr


def add_products(
    folder: Path, store: Settings, ids: list[str], encoder: Path, images: list[bytes] | None = None
) -> str:
    """Add products with these images, or without, and encode them; return what the encoding printed."""
    count = len(ids)
    table = {
        "product_id": ids,
        "title": [f"宝宝连衣裙 {i}" for i in range(count)],
        "image": pa.array(images or [None] * count, pa.binary()),
        "category": ["服装>裙子"] * count,
        "brand": ["品牌"] * count,
        "price": [float(i) for i in range(count)],
        "updated_at": pa.array([START] * count, pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(table), folder / "products.parquet")
    run(folder, store, "catalogue", "--products", "products.parquet", "--max-lost-share", "1")
    return run(folder, store, "embeddings", "--encoder", str(encoder))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mutated_product_is_in_the_catalogue_or_named_in_the_quarantine(tmp_path: Path, seed: int) -> None:
    chance, store = random.Random(seed), configure(tmp_path)
    header = ["product_id", "title", "image", "category", "brand", "price", "updated_at"]
    rows = [
        [
            f"p{i:05}",
            f"宝宝连衣裙 新款 {i}",
            "",
            "服装>裙子",
            "品牌",
            f"{i % 90 + 0.5}",
            (START + timedelta(minutes=i)).isoformat(),
        ]
        for i in range(ROWS)
    ]
    rows = mutate_rows(rows, chance, 0.4)
    ragged = write_csv(tmp_path / "products.csv", header, rows, chance, 0.03)
    output = run(tmp_path, store, "catalogue", "--products", "products.csv", "--max-lost-share", "1")
    refused = quarantine.read(store)
    names = refused["row_id"].to_pylist()
    taken = set(delta.read(store.table("product_catalogue"), ["product_id"])["product_id"].to_pylist())
    ids = {index: text.normalize_id(row[0]) for index, row in enumerate(rows)}
    lost = [rows[i] for i, name in ids.items() if name and i not in ragged and name not in taken.union(names)]
    assert not lost, f"{len(lost)} rows are lost, such as {lost[:3]}\n{output}"
    assert {*ragged.values()} <= set(names)
    nameless = sum(not name for index, name in ids.items() if index not in ragged)
    assert nameless == len({name for name in names if name.startswith("line ")} - {*ragged.values()}), output
    assert len(taken) > ROWS / 2
    again = run(tmp_path, store, "catalogue", "--products", "products.csv", "--max-lost-share", "1")
    assert " 0 new, 0 changed" in again
    assert len(quarantine.read(store)) == len(refused)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mutated_impression_is_used_or_named_in_the_quarantine(tmp_path: Path, encoder: Path, seed: int) -> None:
    chance, store = random.Random(seed), configure(tmp_path)
    add_products(tmp_path, store, [f"p{i}" for i in range(40)], encoder)
    header = ["impression_id", "user_id", "product_id", "event_timestamp", "clicked"]
    rows = [
        [f"i{i}", f"u{i % 50}", f"p{i % 40}", (START + timedelta(hours=1, minutes=i)).isoformat(), str(int(i % 5 == 0))]
        for i in range(ROWS)
    ]
    rows = mutate_rows(rows, chance, 0.3)
    write_csv(tmp_path / "impressions.csv", header, rows, chance, 0.03)
    for step in ("interests", "neighbours"):
        run(tmp_path, store, step, "--impressions", "impressions.csv", "--max-lost-share", "1")
    checked = impressions.read_impressions(tmp_path / "impressions.csv", now=datetime.now(UTC))
    assert len(checked.table) + len(checked.refused) == ROWS
    assert len(checked.table) > ROWS / 2
    rows_named = Counter((row.row_id, row.reason) for row in checked.refused)
    refused = quarantine.read(store)
    for step in ("interests", "neighbours"):
        stored = refused.filter(pc.equal(refused["step"], step))
        named = Counter(zip(stored["row_id"].to_pylist(), stored["reason"].to_pylist(), strict=True))
        assert not rows_named - named, f"{step}: not named: {rows_named - named}"
    users = set(delta.read(store.table("user_interest"), ["user_id"])["user_id"].to_pylist())
    assert {f"u{i}" for i in range(0, 50, 5)} <= users


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mutated_picture_is_encoded_or_named_in_the_quarantine(tmp_path: Path, encoder: Path, seed: int) -> None:
    chance, store = random.Random(seed), configure(tmp_path)
    formats = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"]
    originals = []
    for mode in ("RGB", "L", "RGBA", "P", "CMYK", "I;16", "1"):
        for name in formats:
            noise = np.random.default_rng(seed).integers(0, 255, (48, 40, 3)).astype(np.uint8)
            picture = Image.fromarray(noise).resize((160, 120))
            content = io.BytesIO()
            try:
                (picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)).save(content, name)
            except (OSError, ValueError, KeyError):
                continue  # a format does not write every mode
            originals.append(content.getvalue())
    ids = [f"p{i:05}" for i in range(ROWS)]
    images = [mutate_bytes(chance.choice(originals), chance) for _ in ids]
    output = add_products(tmp_path, store, ids, encoder, images)
    made = delta.read(store.table("product_embedding"), ["product_id", "has_image"])
    assert set(made["product_id"].to_pylist()) == set(ids), output
    encoded = set(made.filter(made["has_image"])["product_id"].to_pylist())
    named = set(quarantine.read(store)["row_id"].to_pylist())
    assert not set(ids) - encoded - named, output
    assert not encoded & named, output
    assert len(encoded) > ROWS / 10
