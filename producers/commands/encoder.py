"""`produce encoder`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import console, vocabulary
from feature_repo.errors import UsageError
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def encoder(
    data: Annotated[Path, typer.Option(help="Folder whose products.parquet has the titles and images to learn from.")],
    output: Annotated[Path, typer.Option("--output", "--out", help="Folder to write the checkpoint to.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the encoder, in its version and beside its vectors.", show_default="that of the folder"
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=1, help="Image-text pairs to learn from, repeats included; a minute on 2 cores.")
    ] = 40_000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the weights, the order and the crops.")] = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Fine-tune this CLIP, Chinese-CLIP, SigLIP, BLIP or other image-text checkpoint: a directory or a "
            "hub name.",
            show_default="a small model, from scratch",
        ),
    ] = None,
    objectives: Annotated[
        str,
        typer.Option(
            help="Comma-separated training objectives: contrastive, words, momentum, matching, language. `produce "
            "captions` needs language."
        ),
    ] = "contrastive,words",
    keep: Annotated[
        str,
        typer.Option(
            "--filter",
            help="Pairs to leave out: none, looks (blank images, titles of hardly a word), or similarity (the pairs "
            "with the lowest similarity in the half-trained encoder).",
        ),
    ] = "none",
    crop: Annotated[float, typer.Option(help="Smallest share of an image that a training crop shows.")] = 0.95,
    jitter: Annotated[
        float, typer.Option(help="Strength of random colour changes; 0 because colour is a property of the product.")
    ] = 0.0,
    batch: Annotated[int, typer.Option(min=2, help="Pairs in a training step, over all processes.")] = 64,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute a step in this many parts.")] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-8, max=1.0, help="The peak learning rate.", show_default="4e-3, fine-tuning 3e-5"),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 elsewhere.")
    ] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Save the state of the training every so many steps.")] = 500,
    align: Annotated[
        Path | None,
        typer.Option(help="Impressions: learn from clicks which directions of the vectors users prefer."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Use only clicks before this time, such as 2026-02-20T00:00:00+00:00.")
    ] = None,
    test_days: Annotated[
        float | None,
        typer.Option(min=0.01, max=36_500, help="Days at the end of the log to leave out, as in `consume lift`."),
    ] = None,
    align_weight: Annotated[
        float,
        typer.Option(
            help="Weight of an additional objective: products that a user clicked in one session get close vectors."
        ),
    ] = 0.0,
    held_out: Annotated[
        int, typer.Option("--hold-out", min=0, help="Products to hold out of training, by design, to measure recall.")
    ] = 0,
    designs: Annotated[Path | None, typer.Option(help="Table of product_id and design_id, for --hold-out.")] = None,
    *,
    table_format: "TableFormat",
) -> None:
    """Train an image-text encoder on a catalogue: a small one from scratch, or fine-tune a checkpoint.

    The result is a transformers checkpoint that `produce embeddings --encoder` accepts, like any CLIP checkpoint. If
    the training is interrupted, the same command continues from the last saved state.
    `torchrun --nproc-per-node N -m producers.cli encoder ...` trains on N processes or GPUs.
    """
    from feature_repo.durations import parse_timestamp
    from producers.encoders import load
    from producers.encoders.training.process_group import is_first_process
    from producers.encoders.training.recipe import Recipe
    from producers.learning.encoder import read_clicks_before, train_encoder
    from producers.learning.evaluation import evaluate, hold_out

    recipe = Recipe(
        objectives=tuple(name.strip() for name in objectives.split(",")),
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        precision=precision,
        keep=keep,
        crop=crop,
        jitter=jitter,
        align=align_weight,
        save_every=save_every,
    )
    now = datetime.now(UTC)
    clicks, held_out_ids = None, None
    if align:
        clicks, before = read_clicks_before(
            align,
            until=parse_timestamp(until) if until else None,
            test_days=test_days,
            now=now,
            table_format=table_format,
        )
        if is_first_process():
            typer.echo(f"{clicks.num_rows:,} clicks before {before:%Y-%m-%d %H:%M} UTC to align with")
    elif until or test_days:
        raise UsageError("--until and --test-days limit the clicks of --align; give --align")
    elif align_weight:
        raise UsageError("--align-weight needs clicks to learn from; give --align")
    if held_out:
        if designs is None:
            raise UsageError("--hold-out needs --designs, because products of one design are held out together")
        held_out_ids = hold_out(data, designs, held_out, seed)
    with console.make_progress_bar() as bar:
        task = bar.add_task("train encoder", total=None)
        summary = train_encoder(
            data,
            output,
            pairs_seen=pairs,
            seed=seed,
            progress=lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total),
            recipe=recipe,
            checkpoint=checkpoint,
            held_out=held_out_ids,
            clicked=clicks,
            name=name,
        )
    if summary is None:  # another process of torchrun reports it
        return
    typer.echo(f"{output}: {summary}")
    if held_out_ids is not None and designs is not None:
        truth = designs.parent if (designs.parent / vocabulary.FILE).is_file() else None
        typer.echo(evaluate(load(str(output)), data, held_out_ids, truth))
