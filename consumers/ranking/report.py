"""The page on which a team decides: one file, no external assets; and the same figures as a table and as JSON."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from consumers.ranking import figures, metrics
from consumers.ranking.lift import ALL, BASE, MODEL, captured_share
from consumers.ranking.run import Run
from feature_repo.errors import VitrineError


def verdict(run: Run) -> str:
    """The answer in one sentence."""
    lift = run.find(ALL)
    assert lift is not None
    low, high = lift.ci95
    interval = f"{lift.lift:+.4f} AUC [{low:+.4f}, {high:+.4f}]"
    placebo = run.find("placebo")
    if placebo is not None and (placebo.ci95[0] > 0 or placebo.ci95[1] < 0):
        return f"Not to be trusted: features without content move AUC by {placebo.lift:+.4f} (with content {interval})"
    if low > 0:
        return f"Multimodal features lift this ranker by {interval}"
    if high < 0:
        return f"Multimodal features harm this ranker: {interval}"
    return f"Not proven: {interval}"


def as_json(run: Run) -> str:
    """`{"rows": {...}, "comparisons": [...]}`, floats as they are, NaN as null."""
    comparisons = [
        {key: _finite(value) for key, value in comparison.as_json().items()} for comparison in run.comparisons
    ]
    return json.dumps({"rows": dict(run.rows), "comparisons": comparisons}, indent=1, allow_nan=False) + "\n"


def as_table(run: Run) -> Table:
    """The AUC figures, for a terminal."""
    said = unused(run)
    table = Table(
        title=Text(verdict(run)), title_justify="left", caption=Text(said) if said else None, caption_justify="left"
    )
    table.add_column("features")
    for column in ("slice", "AUC baseline", "AUC with", "lift", "95% interval", "rows"):
        table.add_column(column, justify="right")
    for c in run.comparisons:
        if c.metric == "auc":
            table.add_row(
                c.name, c.slice, f"{c.base:.4f}", f"{c.with_features:.4f}", f"{c.lift:+.4f}",
                f"[{c.ci95[0]:+.4f}, {c.ci95[1]:+.4f}]", f"{c.rows:,}",
            )  # fmt: skip
    return table


def unused(run: Run) -> str | None:
    """Which context columns no ranker saw, in one sentence; None if there are none."""
    return f"Not used, for they hold neither numbers nor text: {', '.join(run.unused)}" if run.unused else None


def write_report(run: Run, file: Path, timings: Sequence[tuple[str, float]] = ()) -> None:
    """Write the HTML report.

    Args:
        run: what was measured.
        file: where to.
        timings: seconds of each step that led here.
    """
    everywhere = [c for c in run.comparisons if c.slice == "all"]
    sliced = [c for c in run.comparisons if c.slice != "all"]
    with_auc = [c for c in everywhere if c.metric == "auc" and c.name not in ("attainable", "oracle")]
    slices = [c for c in run.comparisons if c.metric == "auc" and c.name == ALL]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        resources.files("consumers.ranking").joinpath("report.html").read_text()
    )
    page = template.render(
        verdict=verdict(run),
        rows=run.rows,
        rows_table=[(name, f"{count:,}") for name, count in run.rows.items()],
        split=str(run.split)[:16].replace("T", " "),
        seeds=len(run.scores.by_name[BASE]),
        replicates=run.replicates,
        encoder=run.encoder,
        model=MODEL,
        cards=_cards(run),
        groups_figure=Markup(figures.forest(with_auc, [c.name for c in with_auc])),
        slices_figure=Markup(figures.forest(slices, [f"{c.slice} ({c.rows:,})" for c in slices])),
        reliability_figure=Markup(
            figures.reliability(run.clicked, {name: run.scores.by_name[name][0] for name in (BASE, ALL)})
        ),
        everywhere=everywhere,
        sliced=sliced,
        timings=timings,
        unused=unused(run),
        gauc_coverage=metrics.gauc_coverage(run.clicked, run.user),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page)


def read_timings(file: Path) -> list[tuple[str, float]]:
    """Lines `seconds step` as (step, seconds).

    Raises:
        VitrineError: the file cannot be read, or a line does not begin with a number.
    """
    try:
        lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()]
        return [(step, float(seconds)) for seconds, step in lines]
    except (OSError, ValueError) as error:
        raise VitrineError(f"{file}: not a file of lines `seconds step` ({error})") from error


def _cards(run: Run) -> list[tuple[str, str]]:
    lift = run.find(ALL)
    assert lift is not None
    cards = [(f"{lift.base:.4f} → {lift.with_features:.4f}", "AUC, tabular → with all features")]
    if new := run.find(ALL, "new products"):
        cards.append((f"{new.lift:+.4f}", f"AUC on products new in the test [{new.ci95[0]:+.4f}, {new.ci95[1]:+.4f}]"))
    if placebo := run.find("placebo"):
        cards.append((f"{placebo.lift:+.4f}", f"placebo [{placebo.ci95[0]:+.4f}, {placebo.ci95[1]:+.4f}]"))
    for ceiling in ("attainable", "oracle"):
        if top := run.find(ceiling):
            share = captured_share(run.comparisons, ceiling)
            cards.append((f"{100 * share:.0f}%", f"of the way to the {ceiling}'s {top.with_features:.4f}"))
    return cards


def _finite(value: object) -> object:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
