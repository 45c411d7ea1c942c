"""`produce evaluate`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import console
from feature_repo.console import JsonOption
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import prepare_output_files, write_text

if TYPE_CHECKING:
    from producers.evaluation.run import EvaluationRun

app = typer.Typer(no_args_is_help=True)
EncoderOption = Annotated[
    str | None, typer.Option(help="A checkpoint directory, a hub name, or a folder that `produce export` wrote.")
]


@app.command()
def muge(
    source: Annotated[Path, typer.Option("--from", help="Folder with the files of MUGE.")],
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "valid",
    encoder: EncoderOption = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Measure this file of predictions: image ids of each query, or captions.")
    ] = None,
    captions: Annotated[bool, typer.Option("--captions", help="The predictions are captions.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="With --encoder: write the predictions as they are submitted.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure on MUGE: R@1, R@5, R@10 and their mean, or BLEU-4 and CIDEr-D of captions.

    Give --encoder or --predictions. A malformed line ends the command with its number.
    """
    from feature_repo.evaluation.muge import TOP_K, write_predictions
    from producers.evaluation import on_muge
    from producers.evaluation.encoding import open_text_image_encoder

    if (encoder is None) == (predictions is None):
        raise UsageError("give --encoder or --predictions, one of them")
    if encoder is not None and captions:
        raise UsageError("--captions measures --predictions; `produce captions` writes captions")
    if output is not None and encoder is None:
        raise UsageError("--output writes the predictions of --encoder; give one")
    prepare_output_files(output)
    now = datetime.now(UTC)
    if predictions is not None:
        measure = on_muge.evaluate_captions if captions else on_muge.evaluate_retrieval
        _report(measure(source, split, predictions, now), json)
        return
    assert encoder is not None
    with open_text_image_encoder(encoder) as opened, console.make_progress_bar() as bar:
        task = bar.add_task("encode pictures", total=None)
        run, ranked = on_muge.evaluate_encoder(
            source, split, opened, now, lambda done: bar.update(task, completed=done)
        )
    if output is not None:
        if short := sum(len(ids) < TOP_K for ids in ranked.values()):
            raise UsageError(f"--output: {short:,} queries have fewer than {TOP_K} usable pictures")
        write_predictions(output, on_muge.read_queries(source, split), ranked)
        typer.echo(f"predictions: {output}")
    _report(run, json)


@app.command()
def images(
    source: Annotated[Path, typer.Option("--from", help="Folder with pictures and metadata.jsonl.")],
    encoder: Annotated[
        str, typer.Option(help="A checkpoint directory, a hub name, or a folder that `produce export` wrote.")
    ],
    queries: Annotated[
        Path | None,
        typer.Option(help="File of lines QUERY, tab, text.", show_default="the pictures' own texts"),
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="With --queries: TREC judgements of pictures by their file_name.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="With --qrels: write the TREC run.")] = None,
    json: JsonOption = None,
) -> None:
    """Measure text to image on a folder in Hugging Face's image-folder form.

    Without --qrels the queries are the pictures' own texts, and the measures R@1, R@5, R@10 and their mean; with
    them those of trec_eval.
    """
    from producers.evaluation import on_images
    from producers.evaluation.encoding import open_text_image_encoder

    if (queries is None) != (qrels is None) or (output is not None and qrels is None):
        raise UsageError("--queries and --qrels go together, and --output needs them")
    prepare_output_files(output)
    now = datetime.now(UTC)
    with open_text_image_encoder(encoder) as opened:
        if queries is None or qrels is None:
            run = on_images.evaluate_folder(source, opened, now)
        else:
            run, ranked = on_images.evaluate_judged_folder(source, queries, qrels, opened, now)
            if output is not None:
                write_text(output, on_images.format_run(ranked, opened.version))
                typer.echo(f"run:     {output}")
    _report(run, json)


@app.command()
def trec(
    qrels: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="TREC judgements.")],
    run: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="TREC run of any system.")],
    json: JsonOption = None,
) -> None:
    """Measure a TREC run by its judgements: AP, RR, nDCG@10, P@10, recall@10 and recall@100 of trec_eval."""
    from producers.evaluation import on_images

    _report(on_images.evaluate_run(qrels, run, datetime.now(UTC)), json)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Folder of JSON files that --json wrote.")],
    output: Annotated[Path | None, typer.Option(help="Also write the table to this CSV, with intervals.")] = None,
) -> None:
    """Show the runs of a folder: a table for each data set, one row a run, one column a measure."""
    from rich.table import Table
    from rich.text import Text

    from producers.evaluation.run import build_tables, format_csv, read_runs

    runs = read_runs(folder)
    for dataset, (header, rows) in build_tables(runs).items():
        shown = Table(title=Text(dataset), title_justify="left")
        for number, name in enumerate(header):
            shown.add_column(name, overflow="fold", no_wrap=number > 0, justify="left" if number == 0 else "right")
        for row in rows:
            shown.add_row(*map(Text, row))
        console.print_tables(shown)
    if output is not None:
        prepare_output_files(output)
        write_text(output, format_csv(runs))
        typer.echo(f"table:   {output}")


def _report(run: "EvaluationRun", json: Path | None) -> None:
    """Print a run, and write its JSON if a file is named."""
    typer.echo(str(run))
    if json is not None:
        write_text(json, run.to_json())
        typer.echo(f"figures: {json}")
