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
    batch: Annotated[int, typer.Option(min=1, help="Sentences of a step, over all processes.")] = 32,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute a process's part of a step in so many parts.")] = 1,
    learning_rate: Annotated[float, typer.Option(min=1e-8, max=1.0, help="Peak learning rate.")] = 1e-4,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16: of the computation.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order and the noise.")] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps after which the state is saved.")] = 500,
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
