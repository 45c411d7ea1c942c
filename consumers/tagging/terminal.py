"""The report on tags as tables for a terminal."""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.tagging.report import TAGGER, Estimate, TagReport, TagsReport


def render_tables(report: TagsReport) -> Group:
    """Return a table of metrics, a line with the gain and a table of thresholds for each tag, then the notes.

    Metrics have three decimals, and undefined ones are shown as `undefined`. The gain is in percentage points of
    accuracy. Tags are in the order of the report.
    """
    parts: list[Table | Text] = [
        Text(f"{report.tagger_version} of {report.created:%Y-%m-%d %H:%M} UTC, products of the test split")
    ]
    for tag in report.tags:
        parts += [_make_metrics_table(tag), _make_gain_line(tag), _make_threshold_table(tag)]
    parts += [Text(note) for note in report.notes]
    parts.append(Text(f"[..] 95% bootstrap interval over groups, {report.replicates} replicates"))
    return Group(*parts)


def _make_metrics_table(tag: TagReport) -> Table:
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
            _format_estimate(row.accuracy),
            _format_estimate(row.macro_f1),
            _format_estimate(row.calibration_error),
            _format_number(row.calibration_error_by_chance),
            _format_estimate(row.brier),
        )
    return table


def _make_gain_line(tag: TagReport) -> Text:
    low, high = (f"{100 * bound:+.2f}" for bound in tag.gain.ci95)
    return Text(f"{TAGGER} - {tag.rival}: {100 * tag.gain.value:+.2f} [{low} {high}] points of accuracy")


def _make_threshold_table(tag: TagReport) -> Table:
    table = Table(
        title="coverage (accuracy) if less probable labels are withheld, by threshold",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("from", no_wrap=True)
    for threshold_metrics in tag.variants[0].thresholds:
        table.add_column(f"{threshold_metrics.threshold:g}", justify="right")
    for row in tag.variants:
        cells = (
            f"{_format_number(threshold_metrics.coverage.value)} ({_format_number(threshold_metrics.accuracy.value)})"
            for threshold_metrics in row.thresholds
        )
        table.add_row(row.variant, *cells)
    return table


def _format_estimate(estimate: Estimate) -> str:
    low, high = estimate.ci95
    return f"{_format_number(estimate.value)} [{_format_number(low)} {_format_number(high)}]"


def _format_number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
