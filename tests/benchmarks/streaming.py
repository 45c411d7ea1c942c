"""Time to first feature of new products that arrive 40 per second, with the encoder on the CPU.

    python -m tests.benchmarks.streaming

`produce stream` runs in its own process. This process sends products, each with its own image and title, at the given
pace, and then reads the table `product_first_feature`. The encoder is the small default one with random weights, unless
--encoder names another; its speed does not depend on its weights.
"""

import io
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
import typer
from PIL import Image

from feature_repo.offline import delta
from producers.encoders import tiny_clip
from tests import servers
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.producers.streaming import running
from tests.producers.streaming.running import Shop

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
PIXELS = 200


@app.command()
def measure_pace(
    a_second: Annotated[float, typer.Option(help="Products per second.")] = 40.0,
    seconds: Annotated[float, typer.Option(help="Duration.")] = 60.0,
    encoder: Annotated[
        Path | None, typer.Option(help="Checkpoint of an encoder.", show_default="the small default one")
    ] = None,
    record: RecordOption = False,
) -> None:
    """Send products at a pace and report the time to first feature."""
    with tempfile.TemporaryDirectory() as folder, servers.redis_server(Path(folder) / "redis") as server:
        root = Path(folder)
        if encoder is None:
            tokenizer = tiny_clip.train_tokenizer([make_title(number) for number in range(1000)])
            tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, root / "encoder")
        shop = running.make(root, server, (encoder or root / "encoder").resolve())
        process = start_stream(shop)
        try:
            send_products(
                shop, [make_image(number) for number in range(20)], 20.0, named="warm"
            )  # starts the decoding process
            wait_until_empty(shop)
            sent = int(a_second * seconds)
            images = [make_image(number) for number in range(20, 20 + sent)]
            began = time.monotonic()
            send_products(shop, images, a_second)
            sending = time.monotonic() - began
            wait_until_empty(shop)
            taking = time.monotonic() - began
        finally:
            process.terminate()
            process.wait(60)
        waited = delta.read(shop.settings.table("product_first_feature"), ["product_id", "seconds"])
    waits = waited.filter(pc.starts_with(waited["product_id"], "p"))["seconds"].to_numpy()
    assert len(waits) == sent, f"{len(waits)} of {sent} products have their features"
    p50, p95, p99 = np.quantile(waits, [0.5, 0.95, 0.99]).tolist()
    figure = harness.BenchmarkFigure(
        name=f"time to first feature, {a_second:.0f} new products a second for {seconds:.0f} s, p95",
        seconds=p95,
        against="5 s allowed",
        against_seconds=5.0,
        ratio=5.0 / p95,
        ratio_range=(5.0 / p95, 5.0 / p95),
        rounds=1,
        command=harness.format_command(),
        note=f"p50 {p50:.2f} s, p99 {p99:.2f} s; {sent:,} products sent in {sending:.1f} s, all committed after "
        f"{taking:.1f} s; {encoder or 'the small default encoder'}",
    )
    harness.report_figures([figure], record)


def start_stream(shop: Shop) -> "subprocess.Popen[str]":
    """Start `produce stream` and return when it is ready."""
    line = ["stream", "--encoder", str(shop.encoder), "--source", shop.url, "--prefix", running.PREFIX]
    more = ["--images", str(shop.settings.file.parent), "--metrics-port", "-1", "--commit-every", "10"]
    process = subprocess.Popen(
        [sys.executable, "-m", "producers.cli", *line, *more, "--store", str(shop.settings.file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line_of_output in process.stderr:
        if line_of_output.startswith("streaming "):
            return process
    raise RuntimeError("the stream did not start")


def send_products(shop: Shop, images: list[bytes], a_second: float, named: str = "p") -> None:
    """Send one product for each image at a pace, none early."""
    began = time.monotonic()
    for number, jpeg in enumerate(images):
        time.sleep(max(0.0, began + number / a_second - time.monotonic()))
        shop.send_product(
            number,
            product_id=f"{named}{number}",
            title=make_title(number),
            image_bytes=jpeg,
            updated_at=datetime.now(UTC).isoformat(),
        )


def make_image(number: int) -> bytes:
    """Return a JPEG that differs for every number."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (PIXELS, PIXELS, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def make_title(number: int) -> str:
    """Return a title that differs for every number."""
    return f"{running.TITLES[number % len(running.TITLES)]} 夏季新款 纯棉 {number}"


def wait_until_empty(shop: Shop) -> None:
    """Wait until every message is acknowledged."""
    while shop.left():
        time.sleep(0.2)


if __name__ == "__main__":
    app(standalone_mode=False)
