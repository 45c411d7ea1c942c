"""Seconds of heads on kept outputs, of a new head over a whole catalogue, and of images from JPEG to rows.

The outputs of towers are made up here where no tower runs: noise around a mean of the words of the title, of the widths
of EfficientNet-Lite0 and MiniLM, so that the heads have something to learn.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo import config, schema
from feature_repo.content_hash import content_hash
from feature_repo.offline import delta
from producers.datasets.shop import assortment
from producers.datasets.shop.titles import write_titles
from producers.embeddings.output_store import FOLDER, IMAGE, TITLE, OutputStore, open_outputs
from producers.embeddings.run import embed_catalogue
from producers.encoders.assembled.assemble import AssembledParts, AssemblySummary, assemble, open_parts
from producers.encoders.image_loader import decode_images, open_decoding_pool
from tests.benchmarks.encoding import EncodingCase, run_ours
from tests.benchmarks.encoding_gpu import NOW, write_jpeg_catalogue
from tests.benchmarks.harness import RecordOption, RoundsOption, compare_sides, take_turns
from tests.benchmarks.photographs import report
from tests.benchmarks.photographs.encoders import IMAGE_TOWER, TEXT_TOWER
from tests.benchmarks.photographs.report import PairedFigure

TOWERS = {"image_tower": IMAGE_TOWER, "text_tower": TEXT_TOWER, "head": "linear", "dim": 128}
ROWS_A_WRITE = 10_000
PROBES = 128
"""Images and titles that towers encode to estimate a full encoding."""

ProductsOption = Annotated[int, typer.Option(min=300, help="Products of the catalogue.")]


def heads(products: ProductsOption = 17_000, record: RecordOption = False) -> None:
    """Train heads on kept outputs: everything that `produce encoder` does after the towers."""
    with tempfile.TemporaryDirectory() as folder:
        titles, images = make_products(products)
        with open_outputs(Path(folder) / FOLDER) as store:
            keep_outputs(store, open_parts(titles, **TOWERS), titles, images)
            wall, cpu = time.perf_counter(), time.process_time()
            summary = train(titles, images, Path(folder) / "encoder", store, head="linear")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert (summary.images_encoded, summary.titles_encoded) == (0, 0)
    steps = (
        f"{summary.heads.steps:,} of {summary.heads.planned:,} steps, {os.cpu_count()} cores, towers loaded and saved"
    )
    show(
        f"train heads on kept outputs, {products:,} products",
        "goal 120 s",
        f"{wall:.0f} s, {cpu:.0f} CPU s",
        "",
        f"{products:,} products",
        steps,
        record,
    )


def new_head(products: ProductsOption = 100_000, record: RecordOption = False) -> None:
    """Write every embedding row by another head, from kept outputs, beside the estimate of a full encoding."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        titles, images = make_products(products)
        parts = open_parts(titles[:2000], **TOWERS)
        with open_outputs(folder / "offline" / FOLDER) as store:
            keep_outputs(store, parts, titles, images)
            train(titles[:2000], images[:2000], folder / "encoder", store, head="mlp")
        (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
        settings = config.load(folder / "feature_store.yaml")
        write_catalogue(settings.table(schema.CATALOGUE_TABLE), titles, images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        done = embed_catalogue(settings, str(folder / "encoder"), now=datetime.now(UTC), progress=lambda *_: None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (done.encoded, done.images, done.titles) == (products, 0, 0)
    estimate = measure_towers(parts, titles[:PROBES]) * products
    show(
        f"embedding rows of {products:,} products by a new head, without a tower call",
        f"towers {estimate:,.0f} CPU s, estimated from {PROBES} products",
        f"{wall:.0f} s, {cpu:.0f} CPU s",
        f"{estimate / cpu:.0f}x",
        f"{products:,} products",
        f"peak memory grew by {memory:,.0f} MiB; outputs take {products * (1280 + 384) * 2 / 2**20:,.0f} MiB",
        record,
    )


def lite0(
    images: Annotated[int, typer.Option(min=16, help="Images.")] = 256,
    jpeg: Annotated[int, typer.Option(min=16, help="Width and height of the images in pixels.")] = 500,
    rounds: RoundsOption = 5,
    record: RecordOption = False,
) -> None:
    """Encode JPEG by EfficientNet-Lite0 at 224 px to rows in Delta, against the forward pass alone."""
    with tempfile.TemporaryDirectory() as temporary, open_decoding_pool() as pool:
        folder = Path(temporary)
        catalogue = pq.read_table(write_jpeg_catalogue(folder / "catalogue.parquet", images, jpeg))
        delta.append(folder / "catalogue", catalogue)
        parts = open_parts(catalogue["title"].to_pylist(), **TOWERS | {"text_tower": "none"})
        case = EncodingCase(folder / "catalogue", parts.make_encoder(), (folder / f"rows{n}" for n in count()))
        sides = {"ours": lambda: run_ours(case, pool), "forward alone": make_forward(case, catalogue, pool)}
        seconds = take_turns(sides, rounds)
        stages = run_ours(case, pool)
    ratio = compare_sides("", seconds, "ours", "forward alone")
    low, high = ratio.ratio_range
    show(
        f"JPEG of {jpeg} px by EfficientNet-Lite0 at 224 px to rows in Delta",
        f"forward alone {images / ratio.against_seconds:.1f} images/s",
        f"{images / ratio.seconds:.1f} images/s",
        f"{ratio.ratio:.2f}x [{low:.2f}, {high:.2f}]",
        f"{images:,} images, {ratio.rounds} rounds",
        str(stages),
        record,
    )


def make_forward(case: EncodingCase, catalogue: pa.Table, pool: ProcessPoolExecutor) -> Callable[[], object]:
    """Return a run of the image tower alone on decoded images, with our batches and threads."""
    pixels = decode_images(catalogue["image_bytes"].to_pylist(), case.encoder.geometry, pool).pixels
    return lambda: case.encoder.encode_pixel_outputs(pixels)


def make_products(products: int) -> tuple[list[str], list[bytes]]:
    """Return the English titles of a generated shop, and bytes that stand for as many different pictures."""
    shop = assortment.make_assortment(products, 1, 0)
    titles = [title or "nameless" for title in write_titles(shop, language="en", seed=0).text]
    return titles, [b"picture %d" % row for row in range(products)]


def keep_outputs(store: OutputStore, parts: AssembledParts, titles: list[str], images: list[bytes]) -> None:
    """Store an output of each tower for each picture and each title."""
    encoder, rng = parts.make_encoder(), np.random.default_rng(0)
    means = rng.normal(size=(len(parts.tokenizer.words), encoder.image_width)).astype(np.float32)
    for start in range(0, len(titles), ROWS_A_WRITE):
        part = slice(start, start + ROWS_A_WRITE)
        about = means[parts.tokenizer.encode_words(titles[part])[:, :12]].mean(axis=1)
        for modality, fingerprint, width, contents in (
            (IMAGE, encoder.image_fingerprint, encoder.image_width, images[part]),
            (TITLE, encoder.text_fingerprint or "", encoder.text_width, [title.encode() for title in titles[part]]),
        ):
            outputs = about[:, :width] + rng.normal(size=(len(about), width)).astype(np.float32)
            store.put(modality, fingerprint, [content_hash(each) for each in contents], outputs.astype(np.float16))


def train(titles: list[str], images: list[bytes], folder: Path, store: OutputStore, *, head: str) -> AssemblySummary:
    """Assemble an encoder of outputs that are all kept."""
    return assemble(titles, images, folder, store, **TOWERS | {"head": head}, seed=0, progress=lambda *_: None)


def write_catalogue(path: Path, titles: list[str], images: list[bytes]) -> None:
    """Write a catalogue table whose images are known by their hash only."""
    columns: dict[str, Any] = {
        schema.PRODUCT_ID: [f"p{row}" for row in range(len(titles))],
        "title": titles,
        "image": [f"/nowhere/{row}.jpg" for row in range(len(titles))],
        "image_hash": [content_hash(image) for image in images],
        schema.EVENT_TIMESTAMP: pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), len(titles)),
        schema.CREATED_TIMESTAMP: pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), len(titles)),
    }
    nulls = {field.name: pa.nulls(len(titles), field.type) for field in schema.CATALOGUE if field.name not in columns}
    delta.append(path, pa.table({name: (columns | nulls)[name] for name in schema.CATALOGUE.names}, schema.CATALOGUE))


def measure_towers(parts: AssembledParts, titles: list[str]) -> float:
    """Return the CPU seconds that both towers take for a product, images decoded already."""
    encoder = parts.make_encoder()
    assert encoder.geometry is not None
    shape = (len(titles), encoder.geometry.height, encoder.geometry.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoder.encode_pixel_outputs(pixels[:16])
    start = time.process_time()
    encoder.encode_pixel_outputs(pixels)
    encoder.encode_text_outputs(titles)
    return (time.process_time() - start) / len(titles)


def show(what: str, other: str, ours: str, difference: str, of: str, note: str, write: bool) -> None:
    """Print a figure, and record it if `write` is true."""
    figure = PairedFigure("generated", what, other, ours, difference, of, note)
    print(figure.render())
    if write:
        report.record([figure])
