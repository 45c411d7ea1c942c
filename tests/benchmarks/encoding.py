"""Pictures and titles to vectors: against the ordinary loop, and against the best the processor or the GPU can do.

    python -m tests.benchmarks.encoding cpu --record
    python -m tests.benchmarks.encoding gpu --record

The ordinary loop is the model's own processor and tokenizer on batches of 32 in float32 and one process, as every
model card shows it. Both sides start from JPEG bytes in a Delta table and end with rows in another.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from PIL import Image

from feature_repo import schema
from producers.encoders import load
from producers.encoders.embed import Seconds, embed_stream
from producers.encoders.pixels import Source, decode, decoding_processes
from producers.encoders.tokens import tokenized
from tests.benchmarks.harness import Figure, Record, Rounds, command, compare, finish, take_turns

app = typer.Typer(help=__doc__, no_args_is_help=True)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_A_COMMIT = 4096
AT_ONCE = 32
"""Of the ordinary loop."""
NAMES = [schema.PRODUCT_ID, "title", "image", "image_bytes", schema.EVENT_TIMESTAMP]


VIT_B_16 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TITLES = ["red dress with short sleeves for girls, size 110", "blue shoes", "soft toy bear for babies of six months"]


@app.callback()
def _root() -> None:
    """Pictures and titles to vectors."""
    # As `produce` does, before torch is first imported: threads that spin while they wait spoil both sides' figures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class Case:
    """A catalogue in a table, an encoder (a DualEncoder), and folders for what is written."""

    catalogue: Path
    encoder: Any
    out: Iterator[Path]

    def chunks(self) -> Iterator[pa.Table]:
        from feature_repo.tables import delta

        table = delta.read(self.catalogue, NAMES)
        return (table.slice(start, ROWS_A_COMMIT) for start in range(0, len(table), ROWS_A_COMMIT))


@app.command()
def cpu(
    products: Annotated[int, typer.Option(help="Products of the shop that is drawn.")] = 8192,
    rounds: Rounds = 7,
    record: Record = False,
) -> None:
    """The small default encoder, its weights as first drawn: how fast it is does not depend on what it has learnt."""
    with tempfile.TemporaryDirectory() as folder, decoding_processes() as pool:
        case, pairs = small_case(Path(folder), products)
        sides = {
            "ours": lambda: ours(case, pool),
            "ordinary loop": lambda: ordinary_loop(case),
            "forward alone": forward_alone(case, pool),
        }
        seconds = take_turns(sides, rounds)
        print(ours(case, pool))
    rates = {name: pairs / float(np.median(taken)) for name, taken in seconds.items()}
    note = ", ".join(f"{name} {rate:,.0f} pairs/s" for name, rate in rates.items())
    what = f"encode {pairs:,} products with the small encoder, from JPEG of 96 px in a table to rows in Delta"
    finish([compare(what, seconds, "ours", other, note) for other in ("ordinary loop", "forward alone")], record)


def small_case(folder: Path, products: int) -> tuple[Case, int]:
    """A shop's products that have a picture and a title, and how many they are."""
    import torch

    from feature_repo.tables import delta
    from producers.encoders import small
    from producers.shop import pictures, titles, world

    shop = world.make_world(products, 1, 0)
    (folder / "images").mkdir()
    for _ in pictures.draw_all(shop, folder / "images", seed=0, processes=1):
        pass
    words = titles.write_titles(shop, language="zh", seed=0).text
    files = [folder / "images" / f"{name}.jpg" for name in shop.products.ids]
    rows = pa.table(
        {
            schema.PRODUCT_ID: shop.products.ids,
            "title": words,
            "image": pa.nulls(products, pa.string()),
            "image_bytes": [file.read_bytes() if file.exists() else None for file in files],
            schema.EVENT_TIMESTAMP: pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), products),
        }
    )
    rows = rows.filter(pc.field("image_bytes").is_valid() & pc.field("title").is_valid())
    delta.append(folder / "catalogue", rows)
    tokenizer = small.learn_tokenizer(rows["title"].to_pylist())
    torch.manual_seed(0)
    small.save(small.build(len(tokenizer)).eval(), tokenizer, folder / "encoder")
    encoder = load(str(folder / "encoder"), device="cpu")
    return Case(folder / "catalogue", encoder, (folder / f"rows{n}" for n in count())), len(rows)


def ours(case: Case, pool: ProcessPoolExecutor) -> Seconds:
    """What `produce embeddings` does of it."""
    from feature_repo.tables import delta

    seconds, out = Seconds(), next(case.out)
    for made in embed_stream(case.chunks(), case.encoder, pool, NOW):
        start = time.perf_counter()
        delta.append(out, made.rows)
        seconds += made.seconds._replace(write=time.perf_counter() - start)
    return seconds


def ordinary_loop(case: Case) -> None:
    """As every model card shows it, and one write of all rows at the end."""
    import torch

    from feature_repo.tables import delta

    model, processor, tokenizer = case.encoder.model, case.encoder.processor, case.encoder.tokenizer
    table = pa.concat_tables(case.chunks())
    images, texts = [], []
    for start in range(0, len(table), AT_ONCE):
        rows = table.slice(start, AT_ONCE).to_pydict()
        opened = [Image.open(BytesIO(content)).convert("RGB") for content in rows["image_bytes"]]
        pixels = processor(images=opened, return_tensors="pt")
        tokens = tokenizer(
            rows["title"], padding=True, truncation=True, max_length=case.encoder.text_length, return_tensors="pt"
        )
        with torch.no_grad():
            image = model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output
            text = model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
        images.append(torch.nn.functional.normalize(image).numpy())
        texts.append(torch.nn.functional.normalize(text).numpy())
    image, text = np.concatenate(images), np.concatenate(texts)
    vectors = {
        "image_vector": image,
        "text_vector": text,
        "fused_vector": _unit(image + text),
        "similar_vector": _unit(0.7 * image + 0.3 * text),
    }
    columns = {
        schema.PRODUCT_ID: table[schema.PRODUCT_ID],
        **{name: pa.FixedSizeListArray.from_arrays(rows.reshape(-1), rows.shape[1]) for name, rows in vectors.items()},
        "has_image": pa.repeat(True, len(table)),
        "has_text": pa.repeat(True, len(table)),
        "encoder_version": pa.repeat(case.encoder.version, len(table)),
        schema.EVENT_TIMESTAMP: table[schema.EVENT_TIMESTAMP],
        schema.CREATED_TIMESTAMP: table[schema.EVENT_TIMESTAMP],
    }
    delta.append(next(case.out), pa.table(columns).cast(schema.PRODUCT_EMBEDDING))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def forward_alone(case: Case, pool: ProcessPoolExecutor) -> Callable[[], None]:
    """Both towers as ours calls them, same batches and threads, from pixels and token ids that lie ready."""
    import torch

    encoder, table = case.encoder, pa.concat_tables(case.chunks())
    sources: list[Source] = table["image_bytes"].to_pylist()
    pixels = decode(sources, encoder.geometry, pool).pixels
    tokens = tokenized(encoder.tokenizer, table["title"].to_pylist(), encoder.text_length)
    ordered = np.argsort(tokens.lengths, kind="stable")
    size = encoder._texts.size
    inputs = [
        tuple(map(torch.from_numpy, encoder.text_inputs(tokens, ordered[start : start + size])))
        for start in range(0, len(ordered), size)
    ]
    size = encoder._images.size
    scaled = [
        torch.addcmul(
            encoder._shift, torch.from_numpy(pixels[start : start + size]).permute(0, 3, 1, 2), encoder._scale
        )
        for start in range(0, len(pixels), size)
    ]
    lanes = encoder._images._lanes

    def image(values: Any) -> None:
        with torch.inference_mode():
            encoder.model.get_image_features(pixel_values=values)

    def text(given: tuple[Any, ...]) -> None:
        with torch.inference_mode():
            encoder.text_tower(*given)

    def run() -> None:
        list(lanes.map(image, scaled))
        list(lanes.map(text, inputs))

    return run


@app.command()
def gpu(
    images: Annotated[int, typer.Option(min=1, help="Pictures of the end-to-end part.")] = 50_000,
    jpeg: Annotated[int, typer.Option(min=16, help="Their width and height in pixels.")] = 800,
    workers: Annotated[int | None, typer.Option(help="Decoding processes.", show_default="one per core")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Two narrow layers: for the CPU.")] = False,
    rounds: Rounds = 5,
    record: Record = False,
) -> None:
    """CLIP with ViT-B/16 at 224 px, weights by chance, on the first GPU (on the CPU if there is none).

    First pictures that are decoded already, against the rate of a bf16 matrix product measured in the same rounds; then
    JPEG bytes in a Parquet file to Parquet parts, and which stage limits that. Needs no store.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder, decoding_processes(workers) as pool:
        encoder = vision_transformer(Path(folder) / "encoder", tiny, str(device))
        flops = flops_of_a_picture(encoder)
        batch = encoder.images_at_once
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
        seconds: dict[str, list[float]] = {"encode": [], "multiply": []}
        encoder.encode_pixels(pixels)
        product, product_flops = matrix_product(device, encoder.dtype)
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
        decoded = share(
            f"encode pictures already decoded, {name} at 224 px, {kind}",
            rates,
            f"{encoder.dtype} matrix product, {rate_of_products / 1e12:.3g} TFLOP/s",
            ceilings,
            f"{flops / 1e9:.3g} GFLOP a picture, batches of {encoder._images.size}",
        )
        catalogue = jpeg_catalogue(Path(folder) / "catalogue.parquet", images, jpeg)
        whole, stages = end_to_end(catalogue, encoder, pool, Path(folder) / "parts")
    limit = "decoding" if stages.wait > 0.1 * (stages.wait + stages.encode) else "the model"
    note = f"{pool._max_workers} decoding processes; {stages}; limited by {limit}"  # type: ignore[attr-defined]
    what = f"encode {images:,} JPEG of {jpeg} px in Parquet to rows in Parquet, {name} at 224 px, {kind}"
    finish([decoded, share(what, [whole], "already decoded", [float(np.median(rates))], note)], record)


def share(what: str, ours: list[float], against: str, theirs: list[float], note: str) -> Figure:
    """Pictures a second, ours as a share of theirs."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Figure(
        name=what,
        seconds=statistics.median(ours),
        against=against,
        against_seconds=statistics.median(theirs),
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        rounds=len(ratios),
        command=command(),
        note=note,
        unit="images/s",
    )


def vision_transformer(folder: Path, tiny: bool, device: str) -> Any:
    """A CLIP encoder by chance: how fast it is does not depend on its weights."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from producers.encoders import small

    size = TINY if tiny else VIT_B_16
    tokenizer = small.learn_tokenizer(TITLES)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    words = size | special | {"vocab_size": 49_408, "max_position_embeddings": 77}
    words |= {} if tiny else {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    config = CLIPConfig(text_config=words, vision_config=size | {"image_size": 224, "patch_size": 16})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    return load(str(folder), device=device)


def flops_of_a_picture(encoder: Any) -> float:
    """Floating-point operations of the image tower, a multiplication and an addition counted as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    one = torch.zeros((1, 224, 224, 3), dtype=torch.uint8, device=encoder.device)
    with torch.no_grad(), counter:
        encoder._pixels_to_features(one)
    return float(counter.get_total_flops())


def matrix_product(device: Any, dtype: Any) -> tuple[Callable[[], None], float]:
    """Products of square matrices, waited for, and how many operations they are."""
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


def jpeg_catalogue(file: Path, images: int, side: int) -> Path:
    """A catalogue of smooth pictures, some hundred different ones again and again."""
    chance = np.random.default_rng(0)
    contents = []
    for _ in range(min(images, 200)):
        coarse = Image.fromarray(chance.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
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


def end_to_end(catalogue: Path, encoder: Any, pool: ProcessPoolExecutor, out: Path) -> tuple[float, Seconds]:
    """Pictures a second, and where the time went."""
    from producers.encoders import parts

    def chunks() -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(catalogue).iter_batches(ROWS_A_COMMIT):
            yield pa.Table.from_batches([batch])

    first = next(chunks()).slice(0, encoder.images_at_once)
    list(embed_stream([first], encoder, pool, NOW))  # processes started, shapes captured
    rows = pq.read_metadata(catalogue).num_rows
    parts.begin(out, parts.Run(encoder.version, "benchmark", rows, ROWS_A_COMMIT))
    start, seconds = time.perf_counter(), Seconds()
    for part, made in enumerate(embed_stream(chunks(), encoder, pool, NOW)):
        began = time.perf_counter()
        parts.write(out, part, made)
        seconds += made.seconds._replace(write=time.perf_counter() - began)
    return rows / (time.perf_counter() - start), seconds


if __name__ == "__main__":
    app()
