"""`produce encoder`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_repo import console
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError
from feature_repo.table_options import with_table_options
from producers.commands.tower_options import check_locks, check_towers, describe_choice, find_deployment
from producers.commands.tuning_options import check_tuning, parse_pairs

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def encoder(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder whose products.parquet has the titles and images to train on.")],
    output: Annotated[Path, typer.Option("--output", "--out", help="Folder to write the checkpoint to.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the encoder, the part of its version before the @.", show_default="that of the folder"
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            help="Licence of the encoder, which `consume cards` shows.",
            show_default="that of the checkpoint or of the towers, if they state one",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="Number of image-text pairs to train on, repeats included. With --task it is a file of labels: for "
            "matching, judged pairs as `consume labels` writes them; for selection, query, product_id and relevant (0 "
            "or 1).",
            show_default="5 for each product, at least 40,000: a minute on 2 cores; fine-tuning 2 for each product",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Tune the encoder of --from for one use: matching (the same product) or selection (products for a "
            "sentence)."
        ),
    ] = None,
    tag_labels: Annotated[
        Path | None,
        typer.Option(
            help="With --task: labels, as for `produce tags`; the report then shows how well they are predicted."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Minutes that the training may take, instead of --pairs: it uses as many pairs as fit into them.",
            show_default="no limit; with --task 200 steps",
        ),
    ] = None,
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
        float, typer.Option(help="Strength of random colour changes in training crops, from 0 (none) to 1.")
    ] = 0.0,
    batch: Annotated[
        int | None,
        typer.Option(min=2, help="Pairs in a training step, over all processes.", show_default="64, fine-tuning 256"),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Number of parts in which a step is computed, to save memory.")
    ] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-8, max=1.0, help="Peak learning rate.", show_default="4e-3, fine-tuning 3e-5"),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Factor of the learning rate from each layer of a tower to the one below.",
            show_default="1, fine-tuning 0.8",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 elsewhere.")
    ] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saved states of the training.")] = 500,
    align: Annotated[
        Path | None,
        typer.Option(
            help="Log of impressions (Parquet or CSV): learn from clicks which directions of the vectors users prefer."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="With --align: use only clicks before this time, such as 2026-02-20T00:00:00+00:00."),
    ] = None,
    test_days: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=36_500, help="With --align: days at the end of the log to leave out, as in `consume lift`."
        ),
    ] = None,
    align_weight: Annotated[
        float,
        typer.Option(
            help="With --align: weight of another objective, by which products that a user clicked in one session get "
            "close vectors."
        ),
    ] = 0.0,
    held_out: Annotated[
        int,
        typer.Option(
            "--hold-out",
            min=0,
            help="Number of products to hold out of the training, by design, to measure recall. Needs --designs.",
        ),
    ] = 0,
    designs: Annotated[
        Path | None,
        typer.Option(
            help="Table of product_id and design_id, for --hold-out and for the validation of --from: products of one "
            "design are held out together; with --task matching they are the same product."
        ),
    ] = None,
    towers: Annotated[
        str | None,
        typer.Option(
            help="auto: train heads for the best pretrained towers that are installed or were downloaded; without any, "
            "the small model."
        ),
    ] = None,
    image_tower: Annotated[
        str | None,
        typer.Option(
            help="Train heads for this image tower: efficientnet-lite0, timm/NAME, or a directory or hub name "
            "of CLIP, SigLIP, DINOv2, ViT, ConvNeXt, ResNet or another vision model."
        ),
    ] = None,
    text_tower: Annotated[
        str | None,
        typer.Option(
            help="The text tower beside it: minilm, a directory or hub name of a sentence encoder, CLIP, "
            "Chinese-CLIP or SigLIP, or none: only the words of the shop.",
            show_default="none",
        ),
    ] = None,
    head: Annotated[str, typer.Option(help="Kind of the heads: linear or mlp.")] = "linear",
    dim: Annotated[int, typer.Option(min=8, max=4096, help="Width of the vectors of an assembled encoder.")] = 128,
    outputs: Annotated[
        Path | None,
        typer.Option(
            "--tower-outputs",
            help="Folder in which the towers' outputs are kept.",
            show_default="that of the deployment, or tower-outputs beside OUTPUT",
        ),
    ] = None,
    lock_image: Annotated[
        bool,
        typer.Option("--lock-image/--unlock-image", help="Freeze the image tower, or train its last layers."),
    ] = True,
    lock_text: Annotated[
        bool, typer.Option("--lock-text/--unlock-text", help="Freeze the text tower, or train its last layers.")
    ] = True,
    unlock_last: Annotated[
        int, typer.Option(min=1, help="Number of last layers of an unlocked tower that are trained, after the heads.")
    ] = 2,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Train an image-text encoder on a catalogue: a small one from scratch, or heads for pretrained towers.

    With --from it fine-tunes a checkpoint instead, validated on a tenth of the designs: the training stops when their
    recall no longer rises, and nothing is saved if it is lower than before. With --task it tunes the heads of the
    checkpoint for one use, and reports what other uses lose.

    The result is a transformers checkpoint that `produce embeddings --encoder` accepts, like any CLIP checkpoint. If
    the training is interrupted, the same command continues from the last saved state.
    `torchrun --nproc-per-node N -m producers.cli encoder ...` trains on N processes or GPUs.
    """
    from feature_repo import vocabulary
    from feature_repo.durations import parse_timestamp
    from producers.encoders import load
    from producers.encoders.training.process_group import is_first_process
    from producers.encoders.training.recipe import FINE_TUNING_BATCH, FINE_TUNING_LAYER_DECAY, Recipe
    from producers.learning.assembly import assemble_encoder, choose_towers
    from producers.learning.encoder import read_clicks_before, train_encoder
    from producers.learning.evaluation import evaluate, hold_out, read_designs
    from producers.learning.tuning import tune_encoder
    from producers.tags.labels import read_labels

    if task or tag_labels:
        check_tuning(context, task, checkpoint)
    check_towers(context, towers, image_tower, text_tower, head)
    if image_tower:
        check_locks(context, text_tower, lock_image=lock_image, lock_text=lock_text)

    pairs_seen = None if task else parse_pairs(pairs)
    if pairs_seen and minutes:
        raise UsageError("--pairs and --minutes exclude each other; give one of them")
    recipe = Recipe(
        objectives=tuple(name.strip() for name in objectives.split(",")),
        batch=batch or (FINE_TUNING_BATCH if checkpoint else Recipe.batch),
        layer_decay=layer_decay or (FINE_TUNING_LAYER_DECAY if checkpoint else Recipe.layer_decay),
        accumulate=accumulate,
        learning_rate=learning_rate,
        precision=precision,
        keep=keep,
        crop=crop,
        jitter=jitter,
        align=align_weight,
        save_every=save_every,
    )
    now, deployment = datetime.now(UTC), find_deployment(store)
    pictures = None if deployment is None else deployment.pictures
    kept_outputs = outputs or (output.parent / "tower-outputs" if deployment is None else deployment.local / "towers")
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
    if towers:
        chosen = choose_towers(data)
        typer.echo(describe_choice(chosen))
        image_tower, text_tower = chosen or (None, None)
        if image_tower:
            check_locks(context, text_tower, lock_image=lock_image, lock_text=lock_text)
    with console.make_progress_bar() as bar:
        line = bar.add_task("train encoder", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            bar.update(line, description=stage, completed=done, total=total)

        common: dict[str, Any] = {"seed": seed, "progress": progress, "held_out": held_out_ids, "name": name}
        common |= {"licence": licence, "pictures": pictures}
        if task and checkpoint:
            tuned = tune_encoder(
                data,
                output,
                checkpoint=checkpoint,
                task=task,
                pairs=Path(pairs) if pairs else None,
                designs=read_designs(designs) if designs else None,
                outputs=kept_outputs,
                minutes=minutes,
                seed=seed,
                progress=progress,
                clicked=clicks,
                tag_labels=read_labels(tag_labels) if tag_labels else None,
                name=name,
                licence=licence,
                pictures=pictures,
            )
            typer.echo(f"{output}: {tuned}")
            return
        summary: object = (
            assemble_encoder(
                data,
                output,
                image_tower=image_tower,
                text_tower=text_tower or "none",
                head=head,
                dim=dim,
                outputs=kept_outputs,
                clicked=clicks,
                image_layers=0 if lock_image else unlock_last,
                text_layers=0 if lock_text else unlock_last,
                **common,
            )
            if image_tower
            else train_encoder(
                data,
                output,
                pairs_seen=pairs_seen,
                minutes=minutes,
                recipe=recipe,
                checkpoint=checkpoint,
                clicked=clicks,
                designs=read_designs(designs) if designs and checkpoint else None,
                **common,
            )
        )
    if summary is None:  # another process of torchrun reports it
        return
    typer.echo(f"{output}: {summary}")
    if held_out_ids is not None and designs is not None:
        truth = designs.parent if (designs.parent / vocabulary.FILE).is_file() else None
        typer.echo(evaluate(load(str(output)), data, held_out_ids, truth, pictures))
