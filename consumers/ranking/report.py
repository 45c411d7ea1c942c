"""The page on which a team decides: one file, no external assets; and the same figures as a table and as JSON."""

import json
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from consumers.ranking import costs, metrics, plots, verdict
from consumers.ranking.bootstrap import DELONG_CAVEAT
from consumers.ranking.lift import OVER_PLACEBO, Comparison, compute_captured_share
from consumers.ranking.plan import ALL, BASE, PERMUTED, PLACEBO
from consumers.ranking.run import LiftResult
from feature_repo.errors import VitrineError


def format_headline(run: LiftResult) -> str:
    """The answer in one sentence."""
    lift = run.find(ALL)
    assert lift is not None
    interval = f"{lift.lift:+.4f} AUC {_span(lift)}"
    over = run.find(OVER_PLACEBO)
    if over is not None and not over.sure and lift.sure and lift.lift > 0:
        return (
            f"Not to be trusted: features of swapped content lift as much, {over.lift:+.4f} between them ({interval})"
        )
    if not lift.sure:
        return f"Not proven: {interval}"
    does = "lift this ranker by" if lift.lift > 0 else "harm this ranker:"
    return f"Multimodal features {does} {interval}"


def to_json(run: LiftResult) -> str:
    """`{"rows": {...}, "comparisons": [...]}` and the sections beside them, floats as they are, NaN as null."""
    text = {
        "rows": dict(run.rows),
        "comparisons": [each.as_json() for each in run.comparisons if each.days == "test"],
        "validation": [each.as_json() for each in run.comparisons if each.days != "test"],
        "rule": verdict.RULE,
        "verdicts": {name: {"verdict": found.verdict, "p": found.p} for name, found in run.verdicts.items()},
        "headroom": [{"name": step.name, "auc": step.auc} for step in run.headroom],
        "learning_curve": [
            {
                "rows": point.rows,
                "base": point.base,
                "with": point.with_features,
                "lift": point.lift,
                "ci95_two_way": list(point.ci95_two_way),
            }
            for point in run.curve
        ],
        "importance": dict(run.scores.gain),
        "delong": {"lift": run.delong.lift, "ci95": list(run.delong.ci95), "caveat": DELONG_CAVEAT},
        "costs": [cost.as_json() for cost in run.costs],
        "encoder": run.encoder,
        **run.sections,
    }
    return json.dumps(_finite(text), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_table(run: LiftResult) -> Table:
    """What decides, in 80 columns of a terminal: each group's lift and verdict, the controls, the slices; the rest is
    in the report and the JSON."""
    said = unused(run)
    table = Table(
        title=Text(format_headline(run)),
        title_justify="left",
        caption=Text(said) if said else None,
        caption_justify="left",
    )
    table.add_column("features")
    for column in ("AUC with", "lift", "95% interval", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for c in run.comparisons:
        if c.metric == "auc" and c.days == "test" and not _is_step(c.name):
            found = run.verdicts.get(c.name) if c.slice == "all" else None
            name = (c.name if c.model != "din" else f"{c.name} (DIN)") if c.slice == "all" else f"  {c.slice}"
            values = (f"{c.with_features:.4f}", f"{c.lift:+.4f}", _ends(c.ci95), found.verdict if found else "")
            table.add_row(name, *values)
    return table


def _is_step(name: str) -> bool:
    """Whether a comparison is one of the steps behind a group's verdict."""
    return name.endswith((", taken away", " over placebo")) and not name.startswith(ALL)


def unused(run: LiftResult) -> str | None:
    """Which context columns no ranker saw, in one sentence; None if there are none."""
    return f"Not used, for they hold neither numbers nor text: {', '.join(run.unused)}" if run.unused else None


def write_report(run: LiftResult, file: Path, timings: Sequence[tuple[str, float]] = ()) -> None:
    """Write the HTML report.

    Args:
        run: what was measured.
        file: where to.
        timings: seconds of each step that led here.
    """
    auc = [c for c in run.comparisons if c.metric == "auc" and c.days == "test" and _main(run, c)]
    everywhere = [c for c in auc if c.slice == "all"]
    main = [c for c in everywhere if c.name in (ALL, PLACEBO, OVER_PLACEBO)]
    slices = [c for c in auc if c.name == ALL]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        resources.files("consumers.ranking").joinpath("report.html").read_text()
    )
    page = template.render(
        verdict=format_headline(run),
        rows=run.rows,
        rows_table=[(name, f"{count:,}") for name, count in run.rows.items()],
        split=_minute(run.split),
        validation=_minute(run.validation),
        seeds=len(run.scores.main[BASE]),
        permutations=len(run.scores.main.get(PLACEBO, [])),
        replicates=run.replicates,
        encoder=run.encoder,
        cards=_cards(run),
        groups=_groups(run),
        rule=verdict.RULE,
        main_figure=Markup(plots.draw_forest(main, [_name(c) for c in main])),
        slices_figure=Markup(plots.draw_forest(slices, [f"{c.slice} ({c.rows:,})" for c in slices])),
        headroom_figure=Markup(plots.draw_waterfall(run.headroom)) if run.headroom else None,
        curve_figure=Markup(plots.draw_learning_curve(run.curve)),
        importance_figure=Markup(plots.draw_importance(_importance(run))),
        importance_shares=_shares(run),
        reliability_figure=Markup(
            plots.draw_reliability(run.clicked, {name: run.scores.main[name][0] for name in (BASE, ALL)})
        ),
        rankers=_of_every_ranker(run) if run.scores.beside else [],
        everywhere=[c for c in run.comparisons if c.slice == "all" and c.days == "test" and c.against != ALL],
        sliced=[c for c in run.comparisons if c.slice != "all"],
        delong=run.delong,
        delong_caveat=DELONG_CAVEAT,
        timings=timings,
        unused=unused(run),
        gauc_coverage=metrics.gauc_coverage(run.clicked, run.user),
        span=_ends,
        name=_name,
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


def _cards(run: LiftResult) -> list[tuple[str, str]]:
    lift = run.find(ALL)
    assert lift is not None
    cards = [(f"{lift.base:.4f} → {lift.with_features:.4f}", "AUC, tabular → with all features")]
    if over := run.find(OVER_PLACEBO):
        cards.append((f"{over.lift:+.4f}", f"AUC over the same features of swapped content {_span(over)}"))
    if new := run.find(ALL, "new products"):
        cards.append((f"{new.lift:+.4f}", f"AUC on products new in the test {_span(new)}"))
    for ceiling in ("attainable", "oracle"):
        if top := run.find(ceiling):
            share = compute_captured_share(run.comparisons, ceiling, run.scores.model)
            cards.append((f"{100 * share:.0f}%", f"of the way to the {ceiling}'s {top.with_features:.4f}"))
    return cards


def _groups(run: LiftResult) -> list[dict[str, object]]:
    """A row for each group: verdict, what it adds alone, beside the others and over its placebo, what it costs."""
    of_group = {cost.group: cost for cost in run.costs}
    rows: list[dict[str, object]] = []
    for name, found in run.verdicts.items():
        row: dict[str, object] = {"name": name, "verdict": found.verdict, "p": found.p}
        row["features"] = run.scores.features[name]
        row["cost"] = of_group.get(name, costs.unknown(name))
        for days in ("validation", "test"):
            for key, called in (("added", name), ("over", f"{name} over placebo"), ("removed", f"{name}, taken away")):
                row[f"{days}_{key}"] = run.find(called, days=days)
        rows.append(row)
    order = (verdict.KEEP, verdict.NOT_PROVEN, verdict.DROP)
    return sorted(rows, key=lambda row: order.index(str(row["verdict"])))


def _of_every_ranker(run: LiftResult) -> list[Comparison]:
    """All features against the baseline and against the placebo, of each kind of ranker."""
    on_test = [c for c in run.comparisons if c.slice == "all" and c.days == "test" and c.name in (ALL, OVER_PLACEBO)]
    return sorted(on_test, key=lambda c: (c.model != run.scores.model, c.name))


def _importance(run: LiftResult, most: int = 20) -> list[tuple[str, str, float]]:
    """The features whose splits gain most: name, group, share."""
    by_gain = sorted(run.scores.gain.items(), key=lambda item: -item[1])[:most]
    return [(feature, run.scores.group_of.get(feature, BASE), share) for feature, share in by_gain]


def _shares(run: LiftResult) -> list[tuple[str, float]]:
    shares: dict[str, float] = defaultdict(float)
    for feature, share in run.scores.gain.items():
        shares[run.scores.group_of.get(feature, BASE)] += share
    return sorted(shares.items(), key=lambda item: -item[1])


def _main(run: LiftResult, comparison: Comparison) -> bool:
    return comparison.model in (run.scores.model, "truth")


def _name(comparison: Comparison) -> str:
    return f"{comparison.name} (DIN)" if comparison.model == "din" else comparison.name.removeprefix(PERMUTED)


def _minute(moment: np.datetime64) -> str:
    return str(moment)[:16].replace("T", " ")


def _span(comparison: Comparison) -> str:
    """The wider interval that there is."""
    both = comparison.ci95_two_way
    return _ends(both if np.isfinite(both[0]) else comparison.ci95)


def _ends(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" if np.isfinite(interval).all() else ""


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
