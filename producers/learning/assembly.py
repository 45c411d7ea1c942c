"""Assemble an encoder from pretrained towers for a shop folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from feature_repo.location import BucketPath
from feature_repo.schema import PRODUCT_ID
from producers.embeddings.output_store import open_outputs
from producers.encoders.assembled import towers
from producers.encoders.assembled.assemble import AssemblySummary, assemble
from producers.encoders.licence import combine_licences, write_licence
from producers.learning.encoder import (
    check_output,
    read_pairs,
    read_training_pairs,
    to_click_arrays,
    write_training_files,
)

SAMPLE_TITLES = 1000
"""First titles of the shop that decide whether a text tower can read them."""


def choose_towers(data: Path) -> tuple[str, str] | None:
    """Return the names of the best image tower and text tower for a shop that need no download; None without any."""
    return towers.choose_towers(read_pairs(data)[0]["title"].slice(0, SAMPLE_TITLES).to_pylist())


def assemble_encoder(
    data: Path,
    out: Path,
    *,
    image_tower: str,
    text_tower: str,
    head: str,
    dim: int,
    outputs: Path,
    seed: int,
    progress: Callable[[str, int, int], None],
    held_out: pa.Table | None = None,
    clicked: pa.Table | None = None,
    name: str | None = None,
    image_layers: int = 0,
    text_layers: int = 0,
    licence: str | None = None,
    pictures: BucketPath | None = None,
) -> AssemblySummary:
    """Train heads for two towers on the products of a shop folder that have a title and an image.

    Args:
        data: folder with products.parquet; relative image paths start there.
        out: folder for the checkpoint; need not exist. A checkpoint in it is replaced.
        image_tower: as in `towers.open_image_tower`.
        text_tower: as in `towers.open_text_tower`, or `none`.
        head: one of `assemble.HEADS`.
        dim: width of the vectors.
        outputs: folder in which the towers' outputs are kept; created if it does not exist.
        seed: of everything random.
        progress: called with what is being done, how much of it is done, and how much there is.
        held_out: products to leave out, as in `train_encoder`.
        clicked: clicks for the preference whitening, as in `train_encoder`.
        name: the encoder's name, as in `train_encoder`.
        image_layers: last layers of the image tower that are trained after the heads; 0 keeps the tower frozen.
        text_layers: the same of the text tower.
        licence: the encoder's licence. None takes those of the towers, as far as they state one.
        pictures: as in `read_pairs`.

    Raises:
        NotFoundError: products.parquet or a tower does not exist.
        InvalidInputError: as in `train_encoder`; or layers of a tower cannot be trained, see `assemble`.
        EncoderMismatchError: outputs of another tower of the same name are kept.
        VitrineError: a tower cannot be read, or the checkpoint cannot be written.
    """
    check_output(out, name)
    products, images, left_out = read_training_pairs(data, held_out, pictures)
    with open_outputs(outputs) as store:
        summary = assemble(
            products.column("title").to_pylist(),
            images,
            out,
            store,
            image_tower=image_tower,
            text_tower=text_tower,
            head=head,
            dim=dim,
            seed=seed,
            progress=progress,
            clicked=to_click_arrays(clicked, products) if clicked is not None else None,
            image_layers=image_layers,
            text_layers=text_layers,
        )
    write_training_files(out, products[PRODUCT_ID], held_out, name)
    write_licence(
        out, licence or combine_licences([tower for tower in (image_tower, text_tower) if tower != towers.NONE])
    )
    return replace(summary, left_out=summary.left_out + left_out)
