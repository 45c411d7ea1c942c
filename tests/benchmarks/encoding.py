"""Encode images and titles: against an ordinary loop, and against the forward pass or the GPU's peak rate.

    python -m tests.benchmarks.encoding cpu --record
    python -m tests.benchmarks.encoding gpu --record

The ordinary loop uses the model's own processor and tokenizer on batches of 32, in float32 and one process, as model
cards show it. Both sides start with JPEG bytes in a Delta table and end with rows in another one.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from PIL import Image

from feature_repo import schema
from feature_repo.images.decoding import Source
from producers.encoders import load
from producers.encoders.image_loader import decode_images, open_decoding_pool
from producers.encoders.pipeline import build_embedding_rows, encode_chunks
from producers.encoders.stage_seconds import StageSeconds
from producers.encoders.tokens import tokenize
from tests.benchmarks.encoding_gpu import NAMES, NOW, ROWS_A_COMMIT, gpu
from tests.benchmarks.harness import RecordOption, RoundsOption, compare_sides, report_figures, take_turns

app = typer.Typer(help=__doc__, no_args_is_help=True)

BATCH = 32
"""Batch size of the ordinary loop."""


@app.callback()
def _root() -> None:
    """Encode images and titles."""
    # As `produce` does, before torch is imported: threads that spin while they wait slow down both sides.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class EncodingCase:
    """A catalogue in a Delta table, an encoder (a DualEncoder), and folders for the output."""

    catalogue: Path
    encoder: Any
    out: Iterator[Path]

    def chunks(self) -> Iterator[pa.Table]:
        from feature_repo.offline import delta, key_ranges

        return key_ranges.read_blocks(delta.open_dataset(self.catalogue), NAMES, ROWS_A_COMMIT)


@app.command()
def cpu(
    products: Annotated[int, typer.Option(help="Products of the generated shop.")] = 8192,
    rounds: RoundsOption = 7,
    record: RecordOption = False,
) -> None:
    """Measure the small default encoder with random weights; its speed does not depend on its weights."""
    with tempfile.TemporaryDirectory() as folder, open_decoding_pool() as pool:
        case, pairs = make_small_case(Path(folder), products)
        sides = {
            "ours": lambda: run_ours(case, pool),
            "ordinary loop": lambda: run_ordinary_loop(case),
            "forward alone": make_forward_pass(case, pool),
        }
        seconds = take_turns(sides, rounds)
        print(run_ours(case, pool))
    rates = {name: pairs / float(np.median(taken)) for name, taken in seconds.items()}
    note = ", ".join(f"{name} {rate:,.0f} pairs/s" for name, rate in rates.items())
    what = f"encode {pairs:,} products with the small encoder, from JPEG of 96 px in a table to rows in Delta"
    report_figures(
        [compare_sides(what, seconds, "ours", other, note) for other in ("ordinary loop", "forward alone")], record
    )


def make_small_case(folder: Path, products: int) -> tuple[EncodingCase, int]:
    """Return a generated shop's products that have an image and a title, and their number."""
    import torch

    from feature_repo.offline import delta
    from producers.datasets.shop import assortment, product_images, titles
    from producers.encoders import tiny_clip

    shop = assortment.make_assortment(products, 1, 0)
    (folder / "images").mkdir()
    for _ in product_images.draw_images(shop, folder / "images", seed=0, processes=1):
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
    tokenizer = tiny_clip.train_tokenizer(rows["title"].to_pylist())
    torch.manual_seed(0)
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, folder / "encoder")
    encoder = load(str(folder / "encoder"), device="cpu")
    return EncodingCase(folder / "catalogue", encoder, (folder / f"rows{n}" for n in count())), len(rows)


def run_ours(case: EncodingCase, pool: ProcessPoolExecutor) -> StageSeconds:
    """Encode and write as `produce embeddings` does."""
    from feature_repo.offline import delta

    seconds, out = StageSeconds(), next(case.out)
    for chunk in encode_chunks(case.chunks(), case.encoder, pool):
        start = time.perf_counter()
        delta.append(out, build_embedding_rows(chunk, case.encoder, NOW).rows)
        seconds += chunk.seconds._replace(write=time.perf_counter() - start)
    return seconds


def run_ordinary_loop(case: EncodingCase) -> None:
    """Encode as model cards show it, and write all rows at the end."""
    import torch

    from feature_repo.offline import delta

    model, processor, tokenizer = case.encoder.model, case.encoder.processor, case.encoder.tokenizer
    table = pa.concat_tables(case.chunks())
    images, texts = [], []
    for start in range(0, len(table), BATCH):
        rows = table.slice(start, BATCH).to_pydict()
        images_of_batch = [Image.open(BytesIO(content)).convert("RGB") for content in rows["image_bytes"]]
        pixels = processor(images=images_of_batch, return_tensors="pt")
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
        **{name: pa.nulls(len(table), pa.string()) for name in ("image_hash", "title_hash")},  # the loop reuses nothing
        "encoder_version": pa.repeat(case.encoder.version, len(table)),
        schema.EVENT_TIMESTAMP: table[schema.EVENT_TIMESTAMP],
        schema.CREATED_TIMESTAMP: table[schema.EVENT_TIMESTAMP],
    }
    delta.append(next(case.out), pa.table(columns).cast(schema.PRODUCT_EMBEDDING))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_forward_pass(case: EncodingCase, pool: ProcessPoolExecutor) -> Callable[[], None]:
    """Return a run of both towers alone, with our batches and threads, from prepared pixels and token ids."""
    import torch

    encoder, table = case.encoder, pa.concat_tables(case.chunks())
    sources: list[Source] = table["image_bytes"].to_pylist()
    pixels = decode_images(sources, encoder.geometry, pool).pixels
    tokens = tokenize(encoder.tokenizer, table["title"].to_pylist(), encoder.text_length)
    ordered = np.argsort(tokens.lengths, kind="stable")
    size = encoder._texts.size
    inputs = [
        tuple(map(torch.from_numpy, encoder.text_inputs(tokens, ordered[start : start + size])))
        for start in range(0, len(ordered), size)
    ]
    size = encoder._images.size
    scaled = [
        torch.addcmul(
            encoder.shift, torch.from_numpy(pixels[start : start + size]).permute(0, 3, 1, 2).float(), encoder.scale
        )
        for start in range(0, len(pixels), size)
    ]
    threads = encoder._images.threads

    def image(values: Any) -> None:
        with torch.inference_mode():
            encoder.model.get_image_features(pixel_values=values)

    def text(given: tuple[Any, ...]) -> None:
        with torch.inference_mode():
            encoder.text_tower(*given)

    def run() -> None:
        list(threads.map(image, scaled))
        list(threads.map(text, inputs))

    return run


app.command()(gpu)


if __name__ == "__main__":
    app()
