"""The part of encoding.py that needs no store: images to vectors on a GPU."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from PIL import Image

from feature_repo import schema
from producers.encoders import load
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.pipeline import build_embedding_rows, encode_chunks
from producers.encoders.stage_seconds import StageSeconds
from tests.benchmarks import gpu_models
from tests.benchmarks.harness import BenchmarkFigure, RecordOption, RoundsOption, format_command, report_figures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_A_COMMIT = 4096
NAMES = [schema.PRODUCT_ID, "title", "image", "image_bytes", schema.EVENT_TIMESTAMP]


@dataclass(frozen=True)
class Budget:
    """The time of a run: every part gets a share of what is left."""

    end: float
    """In seconds of `time.perf_counter`."""

    def take(self, share: float) -> float:
        """Return when a part has to end that gets this share of the time that is left."""
        now = time.perf_counter()
        return now + share * max(0.0, self.end - now)


def gpu(
    minutes: Annotated[float, typer.Option(min=0.05, help="Time of the run, compilation included.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of the end-to-end part at most.")] = 50_000,
    jpeg: Annotated[int, typer.Option(min=16, help="Width and height of the images in pixels.")] = 800,
    workers: Annotated[int | None, typer.Option(help="Decoding processes.", show_default="one per core")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Two narrow layers, few images: a test on a CPU.")] = False,
    rounds: RoundsOption = 5,
    record: RecordOption = False,
) -> None:
    """Measure everything that a GPU runs, on the first GPU, or on the CPU without one, within some minutes.

    CLIP with ViT-B/16 and EfficientNet-Lite0 at 224 px, with random weights: decoded images beside the rate of a matrix
    product measured in the same rounds, compiled beside uncompiled, titles, and JPEG bytes in a Parquet file to Parquet
    parts, with the stage that limits the rate.
    """
    import torch

    budget = Budget(time.perf_counter() + 60 * minutes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    with tempfile.TemporaryDirectory() as temporary, open_decoding_pool(workers) as pool:
        folder = Path(temporary)
        name = "two layers" if tiny else "ViT-B/16"
        vision = gpu_models.make_vision_transformer(folder / "vision", tiny=tiny)
        lite0 = gpu_models.make_lite0(folder / "lite0")
        figures, rate, encoder = measure_images(
            vision, f"{name} at 224 px, {kind}", budget.take(0.3), rounds, tiny=tiny
        )
        figures += measure_images(lite0, f"EfficientNet-Lite0 at 224 px, {kind}", budget.take(0.3), rounds, tiny=tiny)[
            0
        ]
        figures.append(measure_titles(vision, f"text tower of {name}, {kind}", budget.take(0.2), rounds, tiny=tiny))
        catalogue = write_jpeg_catalogue(folder / "catalogue.parquet", images, jpeg)
        done, whole, stages = measure_end_to_end(catalogue, encoder, pool, folder / "parts", budget.take(0.9))
    limit = "decoding" if stages.wait > 0.1 * (stages.wait + stages.encode) else "the model"
    note = f"{pool._max_workers} decoding processes; {stages}; limited by {limit}"  # type: ignore[attr-defined]
    what = f"encode {done:,} JPEG of {jpeg} px in Parquet to rows in Parquet, {name} at 224 px, {kind}"
    report_figures([*figures, compare_rates(what, [whole], "already decoded", [rate], note)], record)


def measure_images(
    checkpoint: Path, what: str, end: float, rounds: int, *, tiny: bool
) -> tuple[list[BenchmarkFigure], float, Any]:
    """Return the figures of images already decoded, the rate in images per second, and the encoder."""
    encoder: Any = load(str(checkpoint))
    plain: Any = load(str(checkpoint), is_compiled=False)
    count = 4 if tiny else encoder.image_batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
    flops = gpu_models.count_image_flops(plain)
    product, product_flops = gpu_models.make_matrix_product(encoder.device, encoder.dtype)
    start = time.perf_counter()
    encoder.encode_pixels(pixels)
    compilation = time.perf_counter() - start
    plain.encode_pixels(pixels)
    sides = {
        "encode": lambda: encoder.encode_pixels(pixels),
        "plain": lambda: plain.encode_pixels(pixels),
        "multiply": product,
    }
    seconds = take_rounds(sides, rounds, end)
    rates = {name: [count / taken for taken in seconds[name]] for name in ("encode", "plain")}
    product_rate = product_flops / float(np.median(seconds["multiply"]))
    against = f"{encoder.dtype} matrix product, {product_rate / 1e12:.3g} TFLOP/s"
    ceilings = [product_flops / taken / flops for taken in seconds["multiply"]]
    size = f"{flops / 1e9:.3g} GFLOP a picture, batches of {encoder._images.size}"
    is_compiled = "compiled" if encoder.runtime.is_compiled else "not compiled on a CPU"
    return (
        [
            compare_rates(f"encode pictures already decoded, {what}", rates["encode"], against, ceilings, size),
            compare_rates(
                f"the same beside an uncompiled model, {what}",
                rates["encode"],
                "uncompiled",
                rates["plain"],
                f"{is_compiled}; the first call took {compilation:.1f} s",
            ),
        ],
        float(np.median(rates["encode"])),
        encoder,
    )


def measure_titles(checkpoint: Path, what: str, end: float, rounds: int, *, tiny: bool) -> BenchmarkFigure:
    """Return the figure of titles, tokenized in the same call."""
    encoder, plain = load(str(checkpoint)), load(str(checkpoint), is_compiled=False)
    titles = gpu_models.TITLES * (20 if tiny else 1400)
    for each in (encoder, plain):
        each.encode_texts(titles)
    sides = {"encode": lambda: encoder.encode_texts(titles), "plain": lambda: plain.encode_texts(titles)}
    seconds = take_rounds(sides, rounds, end)
    rates = [[len(titles) / taken for taken in seconds[name]] for name in ("encode", "plain")]
    return compare_rates(f"encode titles, {what}", rates[0], "uncompiled", rates[1], "", unit="titles/s")


def take_rounds(sides: dict[str, Callable[[], object]], rounds: int, end: float) -> dict[str, list[float]]:
    """Return the seconds of each side in each round; after the first round none begins after `end`."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        if number and time.perf_counter() > end:
            break
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compare_rates(
    what: str, ours: list[float], against: str, theirs: list[float], note: str, unit: str = "images/s"
) -> BenchmarkFigure:
    """Return the figure of two rates; the ratio is ours divided by theirs."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return BenchmarkFigure(
        name=what,
        seconds=statistics.median(ours),
        against=against,
        against_seconds=statistics.median(theirs),
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        rounds=len(ratios),
        command=format_command(),
        note=note,
        unit=unit,
    )


def write_jpeg_catalogue(file: Path, images: int, side: int) -> Path:
    """Write a catalogue of smooth images; at most 200 different ones repeat."""
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(min(images, 200)):
        coarse = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        stream = BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
        contents.append(stream.getvalue())
    arrow = pa.schema([schema.CATALOGUE.field(name) for name in NAMES])
    with pq.ParquetWriter(file, arrow) as writer:
        for start in range(0, images, ROWS_A_COMMIT):
            rows = range(start, min(start + ROWS_A_COMMIT, images))
            columns = {
                schema.PRODUCT_ID: [f"p{row}" for row in rows],
                "title": [gpu_models.TITLES[row % len(gpu_models.TITLES)] for row in rows],
                "image": pa.nulls(len(rows), pa.string()),
                "image_bytes": [contents[row % len(contents)] for row in rows],
                schema.EVENT_TIMESTAMP: pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), len(rows)),
            }
            writer.write_table(pa.table(columns, schema=arrow))
    return file


def measure_end_to_end(
    catalogue: Path, encoder: Any, pool: ProcessPoolExecutor, out: Path, end: float
) -> tuple[int, float, StageSeconds]:
    """Return the images that were encoded, images per second, and the seconds of each stage.

    After the first chunk none is read after `end`.
    """
    from producers.encoders import shards

    rows = pq.read_metadata(catalogue).num_rows

    def chunks() -> Iterator[pa.Table]:
        for number, batch in enumerate(pq.ParquetFile(catalogue).iter_batches(ROWS_A_COMMIT)):
            if number and time.perf_counter() > end:
                return
            yield pa.Table.from_batches([batch])

    first = next(chunks()).slice(0, encoder.image_batch_size)
    list(encode_chunks([first], encoder, pool))  # processes started, shapes compiled
    shards.begin_run(out, shards.RunDescription(encoder.version, "benchmark", rows, ROWS_A_COMMIT))
    start, seconds, done = time.perf_counter(), StageSeconds(), 0
    for part, chunk in enumerate(encode_chunks(chunks(), encoder, pool)):
        began = time.perf_counter()
        shards.write_shard(out, part, build_embedding_rows(chunk, encoder, NOW))
        seconds += chunk.seconds._replace(write=time.perf_counter() - began)
        done += len(chunk.catalogue)
    return done, done / (time.perf_counter() - start), seconds
