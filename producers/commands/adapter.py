"""`produce adapter`."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


class MapOption(StrEnum):
    """The values of `producers.encoders.adapted.vector_map.MapKind`, without its imports."""

    PROCRUSTES = "procrustes"
    RIDGE = "ridge"
    LOW_RANK = "low-rank"
    MLP = "mlp"


def adapter(
    encoder: Annotated[
        str, typer.Option("--from", help="The encoder whose vectors are mapped: a checkpoint's directory or hub name.")
    ],
    target: Annotated[
        str, typer.Option("--to", help="The encoder whose space they are mapped into: its version, or its directory.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write, which `produce embeddings --encoder` then takes.")],
    map_kind: Annotated[
        MapOption,
        typer.Option("--map", help="procrustes: a rotation; ridge: affine; low-rank: ridge in few directions; mlp."),
    ] = MapOption.RIDGE,
    name: Annotated[
        str | None, typer.Option(help="Name of the adapted encoder, in its version.", show_default="that of the folder")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out products, the samples and the network.")] = 0,
    store: StoreOption = None,
) -> None:
    """Map the vectors of one encoder into the space of another, and measure what that loses on held-out products.

    It learns from products that both have encoded. The result is an encoder with a version of its own: its vectors are
    compared with no others.
    """
    from feature_repo import run_log
    from producers.encoders import checkpoint_version
    from producers.encoders.adapted.vector_map import MapKind
    from producers.learning.adapter import train_adapter

    settings = config.load(store)
    with run_log.record_run(settings, "adapter", now=datetime.now(UTC)) as run:
        summary = train_adapter(
            settings,
            encoder=encoder,
            source_version=checkpoint_version.read_version(encoder),
            target_version=checkpoint_version.read_version(target) if Path(target).is_dir() else target,
            kind=MapKind(map_kind),
            output=output,
            name=name,
            seed=seed,
        )
        version = checkpoint_version.read_version(str(output))
        run.set_model(version)
        run.add_counts(products=summary.fitted)
    typer.echo(f"{output}: {version}\n{summary}")
