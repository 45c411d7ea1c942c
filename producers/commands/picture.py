"""`produce picture`: pictures from sentences."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console
from feature_repo.errors import UsageError
from producers.commands.picture_judge import judge
from producers.commands.picture_swap import swap

app = typer.Typer(no_args_is_help=True)
app.command()(swap)
app.command()(judge)


@app.command()
def generate(
    model: Annotated[Path, typer.Option(help="Checkpoint: a folder in the form of diffusers.")],
    output: Annotated[Path, typer.Option("--output", "--out", help="New folder for the pictures and metadata.jsonl.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="SENTENCE...", help="What the pictures show.")] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help="A file of sentences instead: one a line, or .jsonl with `text` and fields that metadata.jsonl keeps."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures of each sentence.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture; each further one has the next.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=150, help="Denoising steps.")] = 30,
    guidance: Annotated[
        float, typer.Option(min=1.0, max=30.0, help="How closely the sentence is followed; 1 is without guidance.")
    ] = 4.0,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's")] = None,
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
