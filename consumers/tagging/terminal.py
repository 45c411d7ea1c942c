"""The report on tags as tables for a terminal."""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.tagging.report import TAGGER, Estimate, TagReport, TagsReport


def render_tables(report: TagsReport) -> Group:
    """One table of metrics and one of thresholds for each tag, and what could not be judged."""
    parts: list[Table | Text] = [
        Text(f"{report.tagger_version} of {report.created:%Y-%m-%d %H:%M} UTC, products of the test split")
    ]
    for tag in report.tags:
        parts += [_metrics(tag), _gain(tag), _thresholds(tag)]
    parts += [Text(note) for note in report.notes]
    parts.append(Text(f"[..] 95% interval, bootstrap over groups, {report.replicates} draws"))
    return Group(*parts)


def _metrics(tag: TagReport) -> Table:
    table = Table(
        title=f"{tag.tag}: {tag.products:,} products of {tag.groups:,} groups",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("from", no_wrap=True)
    for heading in ("accuracy", "macro F1", "calibration error", "by chance", "Brier score"):
        table.add_column(heading, justify="right")
    for row in tag.variants:
        table.add_row(
            row.variant,
            _figure(row.accuracy),
            _figure(row.macro_f1),
            _figure(row.calibration_error),
            _number(row.calibration_error_by_chance),
            _figure(row.brier),
        )
    return table


def _gain(tag: TagReport) -> Text:
    low, high = (f"{100 * bound:+.2f}" for bound in tag.gain.ci95)
    return Text(f"{TAGGER} - {tag.rival}: {100 * tag.gain.value:+.2f} [{low} {high}] points of accuracy")


def _thresholds(tag: TagReport) -> Table:
    table = Table(
        title="kept (right of the kept) if labels below are withheld",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("from", no_wrap=True)
    for at in tag.variants[0].thresholds:
        table.add_column(f"{at.threshold:g}", justify="right")
    for row in tag.variants:
        cells = (f"{_number(at.coverage.value)} ({_number(at.accuracy.value)})" for at in row.thresholds)
        table.add_row(row.variant, *cells)
    return table


def _figure(figure: Estimate) -> str:
    return f"{_number(figure.value)} [{_number(figure.ci95[0])} {_number(figure.ci95[1])}]"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
