"""`produce picture match`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console


def match(
    model: Annotated[Path, typer.Option(help="Checkpoint that `produce picture swap` wrote.")],
    original: Annotated[Path, typer.Option(help="The checkpoint before the swap.")],
    data: Annotated[
        Path, typer.Option(help="Folder of pictures; its metadata.jsonl has sentences in both languages in each line.")
    ],
    output: Annotated[Path, typer.Option("--output", "--out", help="New folder for the trained checkpoint.")],
    original_text: Annotated[
        str, typer.Option(help="Key of the sentences in the original's language; the new ones are `text`.")
    ] = "original_text",
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 3000,
    batch: Annotated[int, typer.Option(min=1, help="Sentences in a step, over all processes.")] = 32,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute a step in this many parts.")] = 1,
    learning_rate: Annotated[float, typer.Option(min=1e-8, max=1.0, help="The peak learning rate.")] = 1e-4,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the order and the noise.")] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Save the state of the training every so many steps.")] = 500,
) -> None:
    """Train a new text encoder so that the UNet's cross-attention answers it as it answers the original one.

    Only the text encoder and its projection change. A killed run goes on when it is started again. Then
    `produce picture train` trains it further on the shop's own pictures.
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
