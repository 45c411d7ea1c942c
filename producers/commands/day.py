"""`produce day`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption
from feature_repo.errors import NotFoundError, UsageError
from feature_repo.files.atomic_write import write_text

CHECK_FAILED = 3
"""Exit code if all steps ended well and a check did not."""


def day(
    products: Annotated[
        Path | None, typer.Option(help="Parquet or CSV with one row for each active product: {products} in the steps.")
    ] = None,
    impressions: Annotated[
        Path | None,
        typer.Option(help="The whole log of impressions so far (Parquet or CSV): {impressions} in the steps."),
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="TOML file with a section `pipeline`.",
            show_default="vitrine.toml beside feature_store.yaml",
        ),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Write the file of --pipeline, and run nothing. Needs --encoder.")
    ] = False,
    encoder: Annotated[
        Path | None, typer.Option(help="With --init: the encoder's checkpoint, as for `produce embeddings`.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="With --init: labels, for `produce tags`.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Run all steps, also those that an unfinished day has completed.")
    ] = False,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Run the steps of this deployment in order, from the day's tables to features online.

    A step that fails ends the day. The same command continues with that step, also after a kill. Exit code 1: a step
    failed. 2: an option or the TOML file is wrong, and nothing was run. 3: the features are written, but a check
    failed.
    """
    from producers.pipeline.plan import FILE_NAME, load_pipeline, write_template
    from producers.pipeline.run import run_day

    settings, now = config.load(store), datetime.now(UTC)
    file = pipeline or settings.file.parent / FILE_NAME
    if init:
        if encoder is None:
            raise UsageError("--init needs --encoder, the checkpoint that `produce embeddings` takes")
        write_template(file, _to_texts({"encoder": encoder, "labels": labels}), has_impressions=impressions is not None)
        typer.echo(f"{file}: written; look through its steps, then run `produce day --products TABLE`")
        return
    if encoder is not None or labels is not None:
        raise UsageError(f"--encoder and --labels need --init; a day takes them from {file}")
    given = {"products": products, "impressions": impressions}
    files = {name: path for name, path in given.items() if path is not None}
    for path in files.values():
        if not path.exists():
            raise NotFoundError(f"{path}: no such file; expected a table in Parquet or CSV")
    plan = load_pipeline(file, _to_texts(given) | {"now": f"{now:%Y-%m-%dT%H:%M:%S}"})

    def show_line(line: str) -> None:
        """Show what a step prints, unless the command is to be quiet."""
        if not console.console.quiet:
            typer.echo(line, err=True)

    summary = run_day(settings, plan, files, now=now, restart=restart, on_line=show_line)
    typer.echo(summary)
    if json is not None:
        write_text(json, summary.to_json())
    if summary.failed_steps or summary.failed_checks:
        raise typer.Exit(1 if summary.failed_steps else CHECK_FAILED)


def _to_texts(paths: dict[str, Path | None]) -> dict[str, str | None]:
    """Return absolute paths as texts."""
    return {name: None if path is None else str(path.resolve()) for name, path in paths.items()}
