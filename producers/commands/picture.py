"""`produce picture`: pictures from sentences."""

from pathlib import Path
from typing import Annotated, Any

import typer

from feature_repo import console
from feature_repo.errors import UsageError
from producers.commands.picture_judge import judge
from producers.commands.picture_match import match
from producers.commands.picture_options import (
    AccumulateOption,
    BatchOption,
    LearningRateOption,
    ModelOption,
    NewCheckpointOption,
    PicturesOption,
    PrecisionOption,
    SaveEveryOption,
    SeedOption,
    StepsOption,
)
from producers.commands.picture_swap import swap

app = typer.Typer(no_args_is_help=True)
app.command()(swap)
app.command()(match)
app.command()(judge)


@app.command()
def generate(
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "--out", help="New folder for the pictures and metadata.jsonl.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="SENTENCE...", help="What the pictures shall show.")
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help="File of sentences instead: one a line, or .jsonl with `text` and further fields for metadata.jsonl."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Number of pictures of each sentence.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first picture; each further picture has the next seed.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, max=150, help="Denoising steps.")] = 30,
    guidance: Annotated[
        float, typer.Option(min=1.0, max=30.0, help="How closely the sentence is followed; 1 is without guidance.")
    ] = 4.0,
    height: Annotated[
        int | None, typer.Option(help="Height of a picture in pixels.", show_default="the model's")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width of a picture in pixels.", show_default="the model's")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures that are generated together.")] = 8,
) -> None:
    """Generate pictures from sentences: PNG files, and metadata.jsonl with sentence, seed and model of each."""
    from producers.encoders.training.process_group import select_device
    from producers.text_to_image.checkpoint import open_pipeline
    from producers.text_to_image.picture_folder import GenerationSettings, SentenceRow, generate_folder, read_sentences
    from producers.text_to_image.sentences import check_sentences, describe_cut, tokenize_sentences

    if bool(texts) == bool(sentences):
        raise UsageError("expected sentences as arguments, or --sentences FILE, and not both")
    wanted = read_sentences(sentences) if sentences else [SentenceRow(text) for text in texts or ()]
    check_sentences([one.text for one in wanted])
    pipeline = open_pipeline(model, device=select_device())
    tokens = tokenize_sentences(pipeline.tokenizer, [one.text for one in wanted])
    if cut := describe_cut([one.text for one in wanted], tokens):
        console.print_notice(cut)
    settings = GenerationSettings(seed, count, steps, guidance, height, width, batch)
    with console.make_progress_bar() as bar:
        task = bar.add_task("generate pictures", total=len(wanted) * count)
        pictures = generate_folder(
            pipeline, wanted, output, settings, progress=lambda done, _: bar.update(task, completed=done)
        )
    typer.echo(f"{output}: {pictures:,} pictures of {len(wanted):,} sentences")


@app.command()
def pairs(
    shop: Annotated[Path, typer.Option(help="Folder of `produce shop`.")],
    output: Annotated[Path, typer.Option("--output", "--out", help="New folder, for train/ and held_out/.")],
    language: Annotated[str, typer.Option(help="Language of the sentences: en or zh.")] = "en",
    held_out: Annotated[int, typer.Option("--hold-out", min=1, help="Number of pictures to hold out.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the words of the sentences.")] = 0,
) -> None:
    """Write the pictures of a generated shop with sentences that state category, colour and pattern."""
    from producers.text_to_image.shop_pairs import write_shop_pairs

    typer.echo(f"{output}: {write_shop_pairs(shop, output, language=language, held_out=held_out, seed=seed)}")


@app.command()
def pretrain(
    data: PicturesOption,
    output: NewCheckpointOption,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Train UNet and text encoder of this checkpoint further, instead of new ones."),
    ] = None,
    side: Annotated[int, typer.Option(min=16, max=256, help="Height and width of the pictures in pixels.")] = 32,
    autoencoder_steps: Annotated[int, typer.Option(min=1, help="Steps of the VAE.")] = 2000,
    text_steps: Annotated[int, typer.Option(min=1, help="Steps of the text encoder alone.")] = 600,
    steps: Annotated[int, typer.Option(min=1, help="Steps of UNet and text encoder together.")] = 2400,
    batch: Annotated[int, typer.Option(min=1, help="Pictures in a training step of UNet and text encoder.")] = 64,
    learning_rate: Annotated[
        float, typer.Option(min=1e-8, max=1.0, help="Peak learning rate of UNet and text encoder.")
    ] = 1e-3,
    precision: PrecisionOption = "bfloat16",
    save_every: SaveEveryOption = 200,
    seed: SeedOption = 0,
) -> None:
    """Train a small model of Stable Diffusion's classes from random weights: VAE, text encoder and UNet.

    If the training is interrupted, the same command continues from the last saved state.
    """
    from producers.text_to_image.initial_model import ModelSizes
    from producers.text_to_image.pretrain import PretrainingRecipe
    from producers.text_to_image.pretrain import pretrain as train_from_random_weights
    from producers.text_to_image.training_loop import TrainingSettings

    shared: dict[str, Any] = {"precision": precision, "seed": seed, "save_every": save_every}
    recipe = PretrainingRecipe(
        ModelSizes(side=side),
        TrainingSettings(autoencoder_steps, batch=32, learning_rate=4e-3, weight_decay=0.0, **shared),
        TrainingSettings(text_steps, batch=192, learning_rate=2e-3, weight_decay=0.05, **shared),
        TrainingSettings(steps, batch=batch, learning_rate=learning_rate, ema_decay=0.998, **shared),
    )
    with console.show_stages() as progress:
        summary = train_from_random_weights(data, output, recipe, start=start, progress=progress)
    typer.echo(f"{output}: {summary}")


@app.command()
def train(
    model: ModelOption,
    data: PicturesOption,
    output: NewCheckpointOption,
    steps: StepsOption = 1000,
    batch: BatchOption = 16,
    accumulate: AccumulateOption = 1,
    learning_rate: LearningRateOption = 1e-4,
    ema_decay: Annotated[
        float,
        typer.Option("--ema", min=0.0, max=0.99999, help="Decay of the moving average of the weights, which is saved."),
    ] = 0.999,
    caption_dropout: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the sentences replaced by the empty one, for guidance.")
    ] = 0.1,
    precision: PrecisionOption = "bfloat16",
    save_every: SaveEveryOption = 200,
    seed: SeedOption = 0,
) -> None:
    """Train the text encoder of a checkpoint on pictures with sentences; UNet and VAE stay as they are.

    If the training is interrupted, the same command continues from the last saved state. On N GPUs:
    `accelerate launch --multi_gpu --num_processes N -m producers picture train ...`
    """
    from producers.encoders.training.process_group import is_first_process
    from producers.text_to_image.train import train_text_encoder
    from producers.text_to_image.training_loop import TrainingSettings

    settings = TrainingSettings(
        steps,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        precision=precision,
        seed=seed,
        save_every=save_every,
    )
    with console.show_stages() as progress:
        summary = train_text_encoder(model, data, output, settings, caption_dropout=caption_dropout, progress=progress)
    if is_first_process():
        typer.echo(f"{output}: {summary}")
