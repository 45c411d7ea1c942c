"""Truth of captions and their likeness to titles, on products that neither the encoder nor the taggers learned from.

    python -m tests.benchmarks.captions --folder FOLDER --record

Makes a shop of the demo's size in a new folder; trains an encoder with a language head, with a quarter of the products
held out; writes tags; and writes captions of both styles. They are compared with the head's most probable lines, as
`produce captions` wrote them before. A second run in the folder goes on with what is there. About ten minutes of one
core. --record writes the section of the language in CAPTIONS.md.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.captions.report import CaptionsReport, evaluate_captions
from feature_repo import config, schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.encoders.captioner import BATCH_SIZE, open_captioner
from producers.encoders.image_loader import decode_images, open_decoding_pool
from tests.benchmarks import harness

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).parent / "CAPTIONS.md"
STYLES = ("plain", "lively")
LANGUAGES = {"zh": "Chinese", "en": "English"}
HELD_OUT = 1 / 4
"""Share of the products that neither the encoder nor the taggers learn from."""


def prepare(folder: Path, products: int, language: str) -> Settings:
    """Make shop, encoder, vectors and tags in a folder, as far as they are not there; return the deployment."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "feature_store.yaml"
    if not file.exists():
        content = (ROOT / "feature_repo" / "feature_store.yaml").read_text()
        file.write_text(content.replace("../data", str(folder.resolve())))
    if not (folder / "shop").exists():
        sizes = f"--products {products} --users 1500 --days 60 --seed 0 --language {language}"
        _run(folder, f"shop --output shop {sizes}")
    if not (folder / "writer").exists():
        held_out = f"--hold-out {round(HELD_OUT * products)} --designs shop/truth/products.parquet"
        _run(folder, f"encoder --data shop --output writer --objectives contrastive,words,language {held_out}")
    _write_labels(folder)
    for command in (
        "catalogue --products shop/products.parquet",
        "embeddings --encoder writer",
        "tags --labels labels.parquet",
    ):
        _run(folder, f"{command} --store feature_store.yaml")
    return config.load(file)


def write_probable_lines(settings: Settings, folder: Path) -> None:
    """Write the head's most probable line for each held-out product to `product_caption`."""
    held_out = pq.read_table(folder / "writer" / "held_out.parquet")[schema.PRODUCT_ID].to_pylist()
    columns = [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, "image"]
    rows = delta.read(settings.table(schema.CATALOGUE_TABLE), columns).to_pylist()
    rows = [row for row in rows if row["image"] is not None and row[schema.PRODUCT_ID] in set(held_out)]
    captioner = open_captioner(str(folder / "writer"))
    with open_decoding_pool() as pool:
        decoded = decode_images([Path(row["image"]) for row in rows], captioner.geometry, pool)
    rows = [row for row, is_usable in zip(rows, decoded.usable, strict=True) if is_usable]
    for start in range(0, len(rows), BATCH_SIZE):
        images = captioner.encode_images(decoded.pixels[start : start + BATCH_SIZE])
        count = len(images.vectors)
        lines = captioner.complete(images, np.arange(count), [""] * count)
        for row, texts in zip(rows[start : start + BATCH_SIZE], lines, strict=True):
            row["caption"] = texts[-1] if texts else ""
    written = {"captioner_version": "most probable line", "encoder_version": captioner.version}
    made = written | {schema.CREATED_TIMESTAMP: datetime.now(UTC)}
    table = pa.Table.from_pylist([row | made for row in rows], schema.PRODUCT_CAPTION)
    delta.append(settings.table(schema.CAPTION_TABLE), table)


def measure(folder: Path, products: int, language: str) -> dict[str, CaptionsReport]:
    """Return the report of each kind of caption on the held-out products."""
    settings = prepare(folder, products, language)

    def evaluate() -> CaptionsReport:
        held_out = folder / "writer" / "held_out.parquet"
        return evaluate_captions(settings, held_out=held_out, truth=folder / "shop" / "truth", seed=0)

    write_probable_lines(settings, folder)
    reports = {"most probable line": evaluate()}
    for style in STYLES:
        options = f"--encoder writer --words shop/truth/words.parquet --language {language} --style {style} --recompute"
        _run(folder, f"captions {options} --store feature_store.yaml")
        reports[style] = evaluate()
    return reports


def render(reports: Mapping[str, CaptionsReport]) -> list[str]:
    """Return the section of one language in CAPTIONS.md."""
    lines = [
        "On held-out products of a generated shop: the encoder learned from no product of their designs, the taggers",
        "from none of them. `stated` is the share of products whose line states the attribute, `true` the share of",
        "those lines that name the true value and no other, [..] its 95% bootstrap interval over products. `titles`",
        "are those of the sellers. BLEU-4, CIDEr-D and chrF compare with the titles.",
        "",
        "| line | products | BLEU-4 | CIDEr-D | chrF |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, report in reports.items():
        scores = f"{report.bleu4:.1f} | {report.cider_d:.1f} | {report.chrf:.1f}"
        lines.append(f"| {name} | {report.captioned:,} of {report.products:,} | {scores} |")
    lines += ["", "| attribute | line | stated | true |", "| --- | --- | --- | --- |"]
    rows: list[tuple[str, Any]] = [
        (name, row) for name, report in reports.items() for row in report.truthfulness if row.lines == "captions"
    ]
    rows += [("titles", row) for row in next(iter(reports.values())).truthfulness if row.lines == "titles"]
    for attribute in dict.fromkeys(row.attribute for _, row in rows):
        for name, row in rows:
            if row.attribute == attribute:
                interval = f"{row.true:.3f} [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"
                lines.append(f"| {attribute} | {name} | {row.names:.3f} | {interval} |")
    return lines


def _run(folder: Path, command: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "producers", *shlex.split(command)]
    print(f"$ produce {command}", flush=True)
    subprocess.run(arguments, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, check=True)


def _write_labels(folder: Path) -> None:
    """Write the shop's labels of the products that are not held out."""
    held_out = pq.read_table(folder / "writer" / "held_out.parquet")[schema.PRODUCT_ID].combine_chunks()
    labels = pq.read_table(folder / "shop" / "labels.parquet")
    is_kept = pc.invert(pc.is_in(labels[schema.PRODUCT_ID], value_set=held_out))
    pq.write_table(labels.filter(is_kept), folder / "labels.parquet")


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="where shop, encoder and tables are made")
    parser.add_argument("--products", type=int, default=8000, help="products of the shop; a quarter is held out")
    parser.add_argument("--language", choices=LANGUAGES, default="zh", help="language of titles and captions")
    parser.add_argument("--record", action="store_true", help="write the section of the language in CAPTIONS.md")
    arguments = parser.parse_args()
    reports = measure(arguments.folder.resolve(), arguments.products, arguments.language)
    lines = render(reports)
    print("\n".join(lines))
    print(json.dumps({name: report.missing for name, report in reports.items()}))
    if arguments.record:
        harness.replace_section(TABLE, "Captions", f"{LANGUAGES[arguments.language]} titles", lines)


if __name__ == "__main__":
    main()
