"""`produce encoder`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console, vocabulary
from feature_repo.errors import UsageError


def encoder(
    data: Annotated[Path, typer.Option(help="Folder whose products.parquet has titles and pictures to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    pairs: Annotated[
        int, typer.Option(min=1, help="Image-text pairs to learn from, repeats included; a minute on 2 cores.")
    ] = 40_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the crops.")] = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Fine-tune this CLIP, Chinese-CLIP, SigLIP, BLIP or other image-text checkpoint: a directory or a "
            "hub name.",
            show_default="a small model, from nothing",
        ),
    ] = None,
    objectives: Annotated[
        str,
        typer.Option(
            help="What to learn by, of contrastive, words, momentum, matching, language: leave one out to see what it "
            "gives. Only language makes `produce captions` possible."
        ),
    ] = "contrastive,words",
    keep: Annotated[
        str,
        typer.Option(
            "--filter",
            help="Pairs to leave out: none, looks (blank pictures, titles of hardly a word), or similarity (those the "
            "half-trained encoder finds least alike).",
        ),
    ] = "none",
    crop: Annotated[
        float, typer.Option(help="Smallest share of a picture that a training crop shows; less hides how large it is.")
    ] = 0.95,
    jitter: Annotated[
        float, typer.Option(help="How far colours are changed by chance; colour is a property of the product.")
    ] = 0.0,
    batch: Annotated[int, typer.Option(min=2, help="Pairs in a step, over all processes.")] = 64,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts of a step that are computed one after the other.")] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-8, max=1.0, help="The highest.", show_default="4e-3, fine-tuning 3e-5"),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 elsewhere.")
    ] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saved states of the training.")] = 500,
    align: Annotated[
        Path | None,
        typer.Option(help="Impressions: what the clicks of a user have in common is to count for more."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only clicks before this time, such as 2026-02-20T00:00:00+00:00.")
    ] = None,
    test_days: Annotated[
        float | None,
        typer.Option(min=0.01, max=36_500, help="Leave out these days at the end of the log, as `consume lift` does."),
    ] = None,
    align_weight: Annotated[
        float,
        typer.Option(
            help="Of an objective beside the others: products that one user clicked in one session lie close."
        ),
    ] = 0.0,
    held_out: Annotated[
        int, typer.Option("--hold-out", min=0, help="Products kept from training to measure recall on, whole designs.")
    ] = 0,
    designs: Annotated[Path | None, typer.Option(help="Table of product_id and design_id, for --hold-out.")] = None,
) -> None:
    """Train an image-text encoder on a catalogue: a small one from nothing, or any checkpoint further.

    The outcome is an ordinary transformers checkpoint; `produce embeddings` takes it, or any CLIP, as --encoder.
    Interrupted, the same command goes on where its last state was saved. `torchrun --nproc-per-node N -m producers.cli
    encoder ...` spreads it over N processes or GPUs.
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
    moment = datetime.now(UTC)
    clicked, kept_back = None, None
    if align:
        clicked, before = read_clicks_before(
            align, until=parse_timestamp(until) if until else None, test_days=test_days, now=moment
        )
        if is_first_process():
            typer.echo(f"{clicked.num_rows:,} clicks before {before:%Y-%m-%d %H:%M} UTC to align with")
    elif until or test_days:
        raise UsageError("--until and --test-days say which clicks --align may see; name its impressions")
    elif align_weight:
        raise UsageError(
            "--align-weight is of an objective that learns from the clicks of --align; name its impressions"
        )
    if held_out:
        if designs is None:
            raise UsageError("--hold-out needs --designs: products of one design are held out together")
        kept_back = hold_out(data, designs, held_out, seed)
    with console.make_progress_bar() as bar:
        task = bar.add_task("train encoder", total=None)
        made = train_encoder(
            data,
            out,
            pairs_seen=pairs,
            seed=seed,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            recipe=recipe,
            checkpoint=checkpoint,
            held_out=kept_back,
            clicked=clicked,
        )
    if made is None:  # another process of torchrun says it
        return
    typer.echo(f"{out}: {made}")
    if kept_back is not None and designs is not None:
        truth = designs.parent if (designs.parent / vocabulary.FILE).is_file() else None
        typer.echo(evaluate(load(str(out)), data, kept_back, truth))
