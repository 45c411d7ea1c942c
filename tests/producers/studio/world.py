"""A shop of four colours with an encoder that writes lines, tags, and a studio in this process."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.serving_limits import CaptionLimits, ConnectionLimits, PictureLimits
from producers.captions.prompts import CaptionOptions
from producers.encoders.train import train
from producers.encoders.training.recipe import Recipe
from producers.studio.metrics import StudioMetrics
from producers.studio.picture_model import PictureModel
from producers.studio.picture_queue import PictureQueue
from producers.studio.run import StudioOptions, open_studio
from tests.deployments import configure, run_in_process

COLOURS = {"red": ("红色", (220, 30, 30)), "green": ("绿色", (30, 180, 60)), "blue": ("蓝色", (40, 60, 220))}
COLOURS["black"] = ("黑色", (15, 15, 15))
PRODUCTS = 160
HOSTILE = "<script>document.title='owned'</script>"
WORDS = [
    *[("colour", value, word) for value, (word, _) in COLOURS.items()],
    *[("colour", value, f"the {value} one") for value in COLOURS],
    ("child_gender", "girl", "女童"),
    ("claim", "free shipping", "包邮"),
]


@dataclass(frozen=True)
class StudioWorld:
    """A deployment with a catalogue, vectors and tags."""

    settings: Settings
    encoder: Path
    words: Path
    labels: Path


def draw(colour: str, shade: int = 0) -> Image.Image:
    """Return a picture of a colour; `shade` varies it a little."""
    rgb = np.array(COLOURS[colour][1]) + np.random.default_rng(shade).integers(-14, 15, 3)
    return Image.new("RGB", (48, 40), tuple(int(one) for one in rgb.clip(0, 255)))


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_world(folder: Path) -> StudioWorld:
    """Train an encoder with a language head, and fill a store: p000 to p159, each of a colour by its number."""
    shop = folder / "shop"
    shop.mkdir()
    names = [list(COLOURS)[number % len(COLOURS)] for number in range(PRODUCTS)]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        picture = shop / f"{number}.png"
        draw(name, number).save(picture)
        rows.append(
            {
                "product_id": f"p{number:03}",
                "title": HOSTILE if number == 4 else f"{COLOURS[name][0]}连衣裙",
                "image": None if number == 5 else str(picture),
                "category": "服装",
                "brand": "Acme",
                "price": 10.0,
                "updated_at": "2026-01-02T00:00:00Z",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), shop / "products.parquet")
    labels = [
        {"product_id": row["product_id"], "tag": "colour", "value": name, "group": row["product_id"]}
        for row, name in zip(rows, names, strict=True)
        if row["image"]
    ]
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    words = [dict(zip(("attribute", "value", "word"), row, strict=True)) for row in WORDS]
    pq.write_table(pa.Table.from_pylist(words), folder / "words.parquet")
    train(
        [f"{COLOURS[name][0]}连衣裙" for name in names],
        [shop / f"{number}.png" for number in range(PRODUCTS)],
        folder / "encoder",
        recipe=Recipe(objectives=("contrastive", "language"), batch=32),
        pairs_seen=2400,
        seed=0,
        progress=lambda *_: None,
    )
    settings = configure(folder)
    for line in (
        "produce catalogue --products shop/products.parquet",
        "produce embeddings --encoder encoder",
        "produce tags --labels labels.parquet",
    ):
        run_in_process(line, folder, settings)
    return StudioWorld(settings, folder / "encoder", folder / "words.parquet", folder / "labels.parquet")


def make_options(world: StudioWorld, **changed: Any) -> StudioOptions:
    options = StudioOptions(
        deployment=world.settings,
        encoder=str(world.encoder),
        words=world.words,
        labels=world.labels,
        tags_encoder=None,
        picture_model=None,
        captions=CaptionOptions(),
        caption_limits=CaptionLimits(),
        picture_limits=PictureLimits(),
        connections=ConnectionLimits(),
        access=ServerAccess(),
        port=0,
        access_log="",
        serve_url="http://127.0.0.1:1",
    )
    return replace(options, **changed)


@dataclass(frozen=True)
class RunningStudio:
    """A studio that answers at an address."""

    url: str
    metrics: StudioMetrics
    queue: PictureQueue | None


@contextmanager
def serving_studio(options: StudioOptions, model: PictureModel | None = None) -> Iterator[RunningStudio]:
    """Serve a studio in this process until the end of the block."""
    addresses: Queue[str] = Queue()
    with open_studio(options, model, None, addresses.put) as studio:
        thread = threading.Thread(target=studio.server.run, daemon=True)
        thread.start()
        try:
            yield RunningStudio(addresses.get(timeout=20), studio.metrics, studio.queue)
        finally:
            studio.server.stop()
            thread.join()
