"""The part of encoding.py that needs no store: images to vectors on a GPU."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
from tests.benchmarks.harness import BenchmarkFigure, RecordOption, RoundsOption, format_command, report_figures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_A_COMMIT = 4096
NAMES = [schema.PRODUCT_ID, "title", "image", "image_bytes", schema.EVENT_TIMESTAMP]
VIT_B_16 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TITLES = ["red dress with short sleeves for girls, size 110", "blue shoes", "soft toy bear for babies of six months"]


def gpu(
    images: Annotated[int, typer.Option(min=1, help="Images of the end-to-end part.")] = 50_000,
    jpeg: Annotated[int, typer.Option(min=16, help="Width and height of the images in pixels.")] = 800,
    workers: Annotated[int | None, typer.Option(help="Decoding processes.", show_default="one per core")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Two narrow layers, for a test on the CPU.")] = False,
    rounds: RoundsOption = 5,
    record: RecordOption = False,
) -> None:
    """Measure CLIP with ViT-B/16 at 224 px and random weights on the first GPU, or on the CPU without one.

    First decoded images are encoded, against the rate of a bf16 matrix product measured in the same rounds. Then JPEG
    bytes in a Parquet file are encoded to Parquet parts, and the stage that limits the rate is named.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder, open_decoding_pool(workers) as pool:
        encoder = make_vision_transformer(Path(folder) / "encoder", tiny, str(device))
        flops = count_image_flops(encoder)
        batch = encoder.image_batch_size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
        seconds: dict[str, list[float]] = {"encode": [], "multiply": []}
        encoder.encode_pixels(pixels)
        product, product_flops = make_matrix_product(device, encoder.dtype)
        for _ in range(rounds):
            for name, side in (("encode", lambda: encoder.encode_pixels(pixels)), ("multiply", product)):
                start = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - start)
        ceilings = [product_flops / taken / flops for taken in seconds["multiply"]]
        rates = [batch / taken for taken in seconds["encode"]]
        rate_of_products = product_flops / float(np.median(seconds["multiply"]))
        name = "two layers" if tiny else "ViT-B/16"
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
        decoded = compare_rates(
            f"encode pictures already decoded, {name} at 224 px, {kind}",
            rates,
            f"{encoder.dtype} matrix product, {rate_of_products / 1e12:.3g} TFLOP/s",
            ceilings,
            f"{flops / 1e9:.3g} GFLOP a picture, batches of {encoder._images.size}",
        )
        catalogue = write_jpeg_catalogue(Path(folder) / "catalogue.parquet", images, jpeg)
        whole, stages = measure_end_to_end(catalogue, encoder, pool, Path(folder) / "parts")
    limit = "decoding" if stages.wait > 0.1 * (stages.wait + stages.encode) else "the model"
    note = f"{pool._max_workers} decoding processes; {stages}; limited by {limit}"  # type: ignore[attr-defined]
    what = f"encode {images:,} JPEG of {jpeg} px in Parquet to rows in Parquet, {name} at 224 px, {kind}"
    report_figures([decoded, compare_rates(what, [whole], "already decoded", [float(np.median(rates))], note)], record)


def compare_rates(what: str, ours: list[float], against: str, theirs: list[float], note: str) -> BenchmarkFigure:
    """Return the figure of two rates in images per second; the ratio is ours divided by theirs."""
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
        unit="images/s",
    )


def make_vision_transformer(folder: Path, tiny: bool, device: str) -> Any:
    """Return a CLIP encoder with random weights; its speed does not depend on its weights."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from producers.encoders import tiny_clip

    size = TINY if tiny else VIT_B_16
    tokenizer = tiny_clip.train_tokenizer(TITLES)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    words = size | special | {"vocab_size": 49_408, "max_position_embeddings": 77}
    words |= {} if tiny else {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    config = CLIPConfig(text_config=words, vision_config=size | {"image_size": 224, "patch_size": 16})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    return load(str(folder), device=device)


def count_image_flops(encoder: Any) -> float:
    """Count floating-point operations of the image tower for one image; a multiply-add counts as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    one = torch.zeros((1, 224, 224, 3), dtype=torch.uint8, device=encoder.device)
    with torch.no_grad(), counter:
        encoder._pixels_to_features(one)
    return float(counter.get_total_flops())


def make_matrix_product(device: Any, dtype: Any) -> tuple[Callable[[], None], float]:
    """Return a run of square matrix products that waits for the result, and its number of operations."""
    import torch

    side, times = (8192, 20) if device.type == "cuda" else (512, 4)
    one = torch.randn((side, side), device=device, dtype=dtype)
    other = torch.randn((side, side), device=device, dtype=dtype)

    def run() -> None:
        for _ in range(times):
            one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run, 2.0 * side**3 * times


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
                "title": [TITLES[row % len(TITLES)] for row in rows],
                "image": pa.nulls(len(rows), pa.string()),
                "image_bytes": [contents[row % len(contents)] for row in rows],
                schema.EVENT_TIMESTAMP: pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), len(rows)),
            }
            writer.write_table(pa.table(columns, schema=arrow))
    return file


def measure_end_to_end(
    catalogue: Path, encoder: Any, pool: ProcessPoolExecutor, out: Path
) -> tuple[float, StageSeconds]:
    """Return images per second and the seconds of each stage."""
    from producers.encoders import shards

    def chunks() -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(catalogue).iter_batches(ROWS_A_COMMIT):
            yield pa.Table.from_batches([batch])

    first = next(chunks()).slice(0, encoder.image_batch_size)
    list(encode_chunks([first], encoder, pool))  # processes started, shapes compiled
    rows = pq.read_metadata(catalogue).num_rows
    shards.begin_run(out, shards.RunDescription(encoder.version, "benchmark", rows, ROWS_A_COMMIT))
    start, seconds = time.perf_counter(), StageSeconds()
    for part, chunk in enumerate(encode_chunks(chunks(), encoder, pool)):
        began = time.perf_counter()
        shards.write_shard(out, part, build_embedding_rows(chunk, encoder, NOW))
        seconds += chunk.seconds._replace(write=time.perf_counter() - began)
    return rows / (time.perf_counter() - start), seconds
