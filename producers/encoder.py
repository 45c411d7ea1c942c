"""A catalogue's titles and pictures to a trained default encoder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from feature_repo.errors import VitrineError
from feature_repo.schema import PRODUCTS
from feature_repo.tables import checks, files
from producers.encoders.pixels import Source
from producers.encoders.train import Trained, train


def train_encoder(
    data: Path, out: Path, *, pairs_seen: int, seed: int, progress: Callable[[int, int], None]
) -> Trained:
    """Train on the products of a shop folder that have a title and a picture; arguments as in `train`.

    Raises:
        VitrineError: DATA/products.parquet is missing, unreadable, or not of the documented shape; OUT is a file.
    """
    if out.exists() and not out.is_dir():
        raise VitrineError(f"{out} is a file: name a folder for the checkpoint")
    file = data / "products.parquet"
    products = files.read(file, PRODUCTS.names)
    checks.require(products, ["title", "image"], file)
    pairs = products.filter(pc.field("title").is_valid() & pc.field("image").is_valid())
    pictures: list[Source] = [
        image if isinstance(image, bytes) else data / image for image in pairs.column("image").to_pylist()
    ]
    made = train(pairs.column("title").to_pylist(), pictures, out, pairs_seen=pairs_seen, seed=seed, progress=progress)
    return replace(made, left_out=products.num_rows - made.pairs)
