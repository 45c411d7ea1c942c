"""The report on tags as tables for a terminal."""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.tagging.estimates import Estimate
from consumers.tagging.novelty import SeenComparison
from consumers.tagging.report import TAGGER, TagReport, TagsReport

MAX_WEEKS = 12
"""Latest weeks of arrival that are shown."""


def render_tables(report: TagsReport) -> Group:
    """Return a table of metrics, a line with the gain and a table of thresholds for each tag, then the notes.

    Metrics have three decimals, and undefined ones are shown as `undefined`. The gain is in percentage points of
    accuracy. Tags are in the order of the report.
    """
    parts: list[Table | Text] = [
        Text(f"{report.tagger_version} of {report.created:%Y-%m-%d %H:%M} UTC, products of the test split")
    ]
    for tag in report.tags:
        parts += [_make_metrics_table(tag), _make_gain_line(tag), *_make_seen_lines(tag), _make_threshold_table(tag)]
    parts += [_make_recall_table(report)] if report.recall else []
    parts += [_make_week_table(report)] if any(len(tag.weeks) > 1 for tag in report.tags) else []
    parts += [Text(note) for note in report.notes]
    parts.append(Text(f"[..] 95% bootstrap interval over groups, {report.replicates} replicates"))
    return Group(*parts)


def _make_metrics_table(tag: TagReport) -> Table:
    table = _make_table(f"{tag.tag}: {tag.products:,} products of {tag.groups:,} groups")
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


def _make_seen_lines(tag: TagReport) -> list[Text]:
    if tag.by_seen is None or not tag.by_seen.unseen.products:
        return []
    unseen, seen = tag.by_seen.unseen, tag.by_seen.seen
    return [
        Text(
            f"accuracy, {unseen.products:,} products that the encoder has not seen: {_format_estimate(unseen.share)}; "
            f"{seen.products:,} that it was trained on: {_format_estimate(seen.share)}; "
            f"difference {_format_points(tag.by_seen)} points"
        )
    ]


def _format_points(by_seen: SeenComparison) -> str:
    if math.isnan(by_seen.difference.value):
        return "undefined"
    low, high = (f"{100 * bound:+.2f}" for bound in by_seen.difference.ci95)
    return f"{100 * by_seen.difference.value:+.2f} [{low} {high}]"


def _make_recall_table(report: TagsReport) -> Table:
    table = _make_table(f"text to image among the products of the test split, vectors of {report.encoder_version}")
    for heading in ("recall", "all products", "not seen by the encoder", "trained on", "difference, points"):
        table.add_column(heading, justify="left" if heading == "recall" else "right")
    for one in report.recall:
        parts = ["unknown"] * 3
        if one.by_seen is not None:
            shares = (one.by_seen.unseen, one.by_seen.seen)
            parts = [f"{_format_estimate(each.share)} of {each.products:,}" for each in shares]
            parts.append(_format_points(one.by_seen))
        table.add_row(f"@{one.cutoff}", _format_estimate(one.recall), *parts)
    return table


def _make_week_table(report: TagsReport) -> Table:
    table = _make_table("accuracy by the week in which products arrived")
    table.add_column("week of", no_wrap=True)
    for tag in report.tags:
        table.add_column(tag.tag, justify="right")
        table.add_column("products (not seen)", justify="right")
    shown = sorted({week.week for tag in report.tags for week in tag.weeks})[-MAX_WEEKS:]
    for monday in shown:
        cells = []
        for tag in report.tags:
            week = next((week for week in tag.weeks if week.week == monday), None)
            unseen = "" if week is None or week.unseen is None else f" ({week.unseen:,})"
            cells += ["", ""] if week is None else [_format_estimate(week.share), f"{week.products:,}{unseen}"]
        table.add_row(monday, *cells)
    return table


def _make_threshold_table(tag: TagReport) -> Table:
    table = _make_table("coverage (accuracy) if less probable labels are withheld, by threshold", style="")
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


def _make_table(title: str, style: str = "bold") -> Table:
    """Return a table without columns, with its title on the left."""
    return Table(title=title, title_justify="left", title_style=style, box=box.SIMPLE_HEAD, pad_edge=False)


def _format_estimate(estimate: Estimate) -> str:
    low, high = estimate.ci95
    return f"{_format_number(estimate.value)} [{_format_number(low)} {_format_number(high)}]"


def _format_number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
