"""`produce picture match`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console
from producers.commands.picture_options import (
    AccumulateOption,
    BatchOption,
    LearningRateOption,
    NewCheckpointOption,
    PrecisionOption,
    SaveEveryOption,
    SeedOption,
    StepsOption,
)


def match(
    model: Annotated[Path, typer.Option(help="Checkpoint that `produce picture swap` wrote.")],
    original: Annotated[Path, typer.Option(help="The checkpoint before the swap.")],
    data: Annotated[
        Path, typer.Option(help="Folder of pictures; its metadata.jsonl has sentences in both languages in each line.")
    ],
    output: NewCheckpointOption,
    original_text: Annotated[
        str, typer.Option(help="Key of the sentences in the original's language; the new ones are `text`.")
    ] = "original_text",
    steps: StepsOption = 3000,
    batch: BatchOption = 32,
    accumulate: AccumulateOption = 1,
    learning_rate: LearningRateOption = 1e-4,
    precision: PrecisionOption = "float32",
    seed: SeedOption = 0,
    save_every: SaveEveryOption = 500,
) -> None:
    """Train a new text encoder so that the UNet's cross-attention gives the same outputs as with the original.

    Only the text encoder and its projection change. If the training is interrupted, the same command continues from the
    last saved state. Then `produce picture train` trains it further on the shop's own pictures.
    """
    from producers.encoders.training.process_group import is_first_process
    from producers.text_to_image.match_training import match_checkpoint
    from producers.text_to_image.training_loop import TrainingSettings

    settings = TrainingSettings(
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        save_every=save_every,
    )
    with console.show_stages() as progress:
        summary = match_checkpoint(
            model, original, data, output, settings, original_key=original_text, progress=progress
        )
    if is_first_process():
        typer.echo(f"{output}: {summary}")
