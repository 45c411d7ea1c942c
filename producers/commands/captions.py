"""`produce captions`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError


def captions(
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint with a language head: `produce encoder --objectives contrastive,words,language`."
        ),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="Parquet or CSV: attribute, value, word: how captions state values of tags."),
    ] = None,
    style: Annotated[
        str, typer.Option(help="plain: the sure values only; lively: the language head continues the line.")
    ] = "plain",
    category_style: Annotated[
        list[str] | None,
        typer.Option(help="CATEGORY=STYLE: another style for a category and those below it; may be repeated."),
    ] = None,
    language: Annotated[str, typer.Option(help="zh or en; the checkpoint's titles must have been in it.")] = "zh",
    length: Annotated[int, typer.Option(min=1, help="Maximum number of characters of a caption.")] = 40,
    min_probability: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="State an attribute only if its value is at least this probable.")
    ] = 0.9,
    candidates: Annotated[int, typer.Option(min=1, max=64, help="Captions to choose from, for each product.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the candidates.")] = 0,
    learn: Annotated[
        Path | None,
        typer.Option(help="Learn from edits instead: Parquet or CSV with product_id, caption, edited_caption and at."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="With --learn: the labels so far; those of the edits replace theirs."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="With --learn: the labels for `produce tags`, a new Parquet file.")
    ] = None,
    export_edits: Annotated[
        Path | None,
        typer.Option(help="Write merchants' edits, which `produce studio` keeps, to this Parquet file for --learn."),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Write all rows again, those that are up to date too.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a selling line for every image that has none yet with these options.

    A line states only values of tags whose probability is at least --min-probability. A product without any such value
    gets a row with the reason. Unusable images go to the quarantine table with the reason.
    """
    if export_edits is not None:
        from producers.captions import edit_log

        typer.echo(edit_log.export_edits(config.load(store), export_edits))
        return
    if words is None:
        raise UsageError("--words is missing: a Parquet or CSV of attribute, value and word")
    settings, now = config.load(store), datetime.now(UTC)
    if learn is not None:
        _learn(settings, learn, words, labels, output, now)
        return
    if labels is not None or output is not None:
        raise UsageError("--labels and --output belong to --learn, which is missing")
    if encoder is None:
        raise UsageError("--encoder is missing: a checkpoint with a language head")
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from feature_repo.vocabulary import read_words
    from producers.captions.prompts import CaptionOptions
    from producers.captions.run import caption_catalogue

    options = CaptionOptions(
        language=_require_one_of("--language", language, schema.CAPTION_LANGUAGES),
        style=_require_one_of("--style", style, schema.CAPTION_STYLES),
        category_styles=_parse_styles(category_style or ()),
        min_probability=min_probability,
        length=length,
        candidates=candidates,
        seed=seed,
    )
    vocabulary = read_words(words)
    reads = [schema.CATALOGUE_TABLE, schema.TAGS_TABLE]
    with run_log.record_run(settings, "captions", now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("write captions", total=None)
        summary = caption_catalogue(
            settings,
            encoder,
            vocabulary,
            options,
            recompute=recompute,
            now=choose_created_timestamp(settings, [schema.CAPTION_TABLE], now),
            progress=lambda count, total: bar.update(task, completed=count, total=total),
        )
        run.set_model(summary.captioner_version)
        run.add_counts(
            written=summary.written,
            known=summary.known,
            without_picture=summary.without_image,
            without_caption=sum(summary.missing.values()),
        )
        run.add_quarantined(summary.unusable)
    typer.echo(summary)


def _learn(
    settings: config.Settings, edits: Path, words: Path, labels: Path | None, output: Path | None, now: datetime
) -> None:
    from feature_repo.vocabulary import read_words
    from producers.captions.edits import learn_labels

    if output is None:
        raise UsageError("--learn needs --output: the Parquet file of labels to write for `produce tags --labels`")
    typer.echo(learn_labels(settings, edits, read_words(words), labels=labels, output=output, now=now))


def _require_one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(f"{option} is `{value}`; expected {' or '.join(allowed)}")
    return value


def _parse_styles(texts: list[str] | tuple[()]) -> dict[str, str]:
    """Return category -> style from texts CATEGORY=STYLE."""
    styles: dict[str, str] = {}
    for text in texts:
        category, separator, style = text.rpartition("=")
        if not separator or not category:
            raise UsageError(f"--category-style is `{text}`; expected CATEGORY=STYLE, such as toys=lively")
        styles[category] = _require_one_of(f"--category-style {category}", style, schema.CAPTION_STYLES)
    return styles
