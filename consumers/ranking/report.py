"""The result of a measurement as one HTML file without external assets, as JSON, and as a table for the terminal."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from consumers.ranking import metrics, plots, power, screening, splits, verdict
from consumers.ranking.bootstrap import DELONG_CAVEAT
from consumers.ranking.costs import GroupCost
from consumers.ranking.feature_meaning import GROUPS, describe_feature, label_feature
from consumers.ranking.lift import OVER_PLACEBO, Comparison, compute_captured_share
from consumers.ranking.notes import describe_baseline, describe_screening, format_power, format_unused_columns
from consumers.ranking.plan import ALL, BASE, CEILING, DIN, PERMUTED, PLACEBO
from consumers.ranking.result import LiftResult
from consumers.report_json import to_json_value
from feature_repo.errors import InvalidInputError
from feature_repo.files.atomic_write import write_text

REPEATABILITY = (
    "The same command gives the same figures on the same machine and data with one thread (OMP_NUM_THREADS=1). Another "
    "training seed gives others, and so do several threads and another processor, because sums round in another order."
)
"""What another run may give; on the page."""


@dataclass(frozen=True)
class Provenance:
    """How a measurement was made."""

    date: datetime
    """When it began, with a time zone."""
    command: str
    """The command line."""
    version: str
    """Version of Vitrine."""
    impressions: Path
    """The log. Absolute."""
    store: Path
    """The deployment's feature_store.yaml. Absolute."""


def format_headline(result: LiftResult) -> str:
    """Return the conclusion in one line: lift, harm, not proven, or not to be trusted.

    The lift of all features in AUC on all test rows decides: it is not proven if its interval, with users and products
    drawn, contains zero. It is not to be trusted if its interval is above zero, but that of its difference to permuted
    content (the placebo) contains zero.

    Args:
        result: the measurement; it must have compared all features with the baseline.
    """
    lift = result.find(ALL)
    assert lift is not None
    interval = f"{lift.lift:+.4f} AUC {_format_interval(lift.interval)}"
    over = result.find(OVER_PLACEBO)
    if over is not None and not over.is_significant and lift.is_significant and lift.lift > 0:
        return (
            "Not to be trusted: the same features with permuted content lift as much, "
            f"difference {over.lift:+.4f} ({interval})"
        )
    if not result.scores.taken:
        return f"Not proven: no group of features passed the screening, {interval}"
    if not lift.is_significant:
        return f"Not proven: {interval}"
    verb = "lift this ranker by" if lift.lift > 0 else "harm this ranker:"
    return f"Multimodal features {verb} {interval}"


def to_json(result: LiftResult, provenance: Provenance | None = None) -> str:
    """Return the result as JSON text with unrounded numbers; NaN and infinity become null.

    The top-level keys are rows, comparisons (on test days), validation (comparisons on validation days), group_slices
    (single groups on parts of the test days), validation_rule, rule, verdicts, power (what that of the verdicts means),
    screening, baseline_columns (context columns of the log), headroom, learning_curve, importance, meaning (of each
    feature), delong, costs, encoder, provenance, and the keys of `result.sections`. All but the last are always there.
    The text ends with a newline.

    Args:
        result: the measurement.
        provenance: how it was made; None becomes null.
    """
    content = {
        "rows": dict(result.rows),
        "comparisons": [each.as_json() for each in result.comparisons if each.days == "test"],
        "validation": [each.as_json() for each in result.comparisons if each.days != "test"],
        "group_slices": [each.as_json() for each in result.group_slices],
        "validation_rule": splits.VALIDATION_RULE,
        "rule": verdict.RULE,
        "verdicts": {name: asdict(each) for name, each in result.verdicts.items()},
        "power": {"effect": power.EFFECT, "target": power.TARGET},
        "screening": {
            "errors": screening.ERRORS,
            "taken": list(result.scores.taken),
            "permuted_taken": dict(result.scores.permuted_taken),
            "permutations": len(result.scores.main.get(PLACEBO, [])),
        },
        "baseline_columns": result.baseline_columns,
        "headroom": [{"name": step.name, "auc": step.auc, "gauc": step.gauc} for step in result.headroom],
        "learning_curve": [
            {
                "rows": point.rows,
                "base": point.base,
                "with": point.with_features,
                "lift": point.lift,
                "ci95_two_way": list(point.ci95_two_way),
                "gauc_lift": point.gauc_lift,
            }
            for point in result.curve
        ],
        "importance": dict(result.scores.gain),
        "meaning": {name: describe_feature(name, result.context) for name in result.scores.group_of},
        "delong": {"lift": result.delong.lift, "ci95": list(result.delong.ci95), "caveat": DELONG_CAVEAT},
        "costs": [cost.as_json() for cost in result.costs],
        "encoder": result.encoder,
        "provenance": {name: str(value) for name, value in asdict(provenance).items()} if provenance else None,
        **result.sections,
    }
    return json.dumps(to_json_value(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_table(result: LiftResult) -> Table:
    """Return the main figures as a table for the terminal, in AUC on the test days, under the headline as its title.

    Groups with their verdicts come first, then the other rankers and all features on each slice. Comparisons of a group
    taken away or over its placebo are left out. Notes on the screening, on the power of the verdicts and on the log's
    columns follow below the table.
    """
    notes = [
        "Intervals draw users and products.",
        describe_screening(result),
        f"Power: in how many cases a group that is truly worth {power.EFFECT:+} AUC would be kept.",
        describe_baseline(result),
        format_unused_columns(result),
    ]
    table = Table(
        title=Text(format_headline(result)),
        title_justify="left",
        caption=Text("\n".join(note for note in notes if note)),
        caption_justify="left",
    )
    table.add_column("features")
    for column in ("AUC with", "lift", "95% interval", "verdict", "power"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    for c in result.comparisons:
        if c.metric == "auc" and c.days == "test" and not _is_group_detail(c.name):
            found = result.verdicts.get(c.name) if c.slice == "all" else None
            name = _label(c) if c.slice == "all" else f"  {c.slice}"
            values = (
                f"{c.with_features:.4f}",
                f"{c.lift:+.4f}",
                _format_interval(c.interval),
                found.verdict if found else "",
                format_power(found) if found else "",
            )
            table.add_row(name, *values)
    return table


def _is_group_detail(name: str) -> bool:
    """Whether a comparison is a group removed or over its placebo; the table leaves these out."""
    return name.endswith((", taken away", " over placebo")) and not name.startswith(ALL)


def write_report(
    result: LiftResult,
    file: Path,
    timings: Sequence[tuple[str, float]] = (),
    provenance: Provenance | None = None,
) -> None:
    """Write the HTML report, one file with its plots that needs no other file.

    Args:
        result: the measurement.
        file: the file to write; an existing one is overwritten, missing folders are created.
        timings: (step, seconds) of the steps of the measurement, shown as a table in this order.
        provenance: how the measurement was made; None leaves it out.
    """
    shown = [c for c in result.comparisons if c.days == "test" and _is_main(result, c)]
    main = [c for c in shown if c.slice == "all" and c.name in (ALL, PLACEBO, OVER_PLACEBO)]
    slices = [c for c in shown if c.name == ALL]
    lift = result.find(ALL)
    assert lift is not None
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        resources.files("consumers.ranking").joinpath("report.html").read_text()
    )
    page = template.render(
        headline=format_headline(result),
        rows=result.rows,
        rows_table=[
            (name.replace("ladder", "ablation").replace("_", ", "), f"{count:,}") for name, count in result.rows.items()
        ],
        test_start=_format_minute(result.split),
        validation_start=_format_minute(result.validation),
        seeds=len(result.scores.main[BASE]),
        permutations=len(result.scores.main.get(PLACEBO, [])),
        replicates=result.replicates,
        encoder=result.encoder,
        cards=_cards(result),
        groups=_group_rows(result),
        rule=verdict.RULE,
        validation_rule=splits.VALIDATION_RULE,
        screening=describe_screening(result),
        effect=f"{power.EFFECT:+}",
        target=f"{power.TARGET:.0%}",
        baseline=describe_baseline(result),
        provenance=provenance,
        repeatability=REPEATABILITY,
        main_figure=Markup(plots.draw_forest(_by_metric(main, _label))),
        slices_figure=Markup(plots.draw_forest(_by_metric(slices, lambda c: f"{c.slice} ({c.rows:,})"))),
        headroom_figure=Markup(plots.draw_waterfall(result.headroom, lift.effect)) if result.headroom else None,
        curve_figure=Markup(plots.draw_learning_curve(result.curve)),
        importance_figure=Markup(plots.draw_importance(_top_features(result))),
        importance_shares=_group_shares(result),
        features=_feature_rows(result),
        reliability_figure=Markup(
            plots.draw_reliability(result.clicked, {name: result.scores.main[name][0] for name in (BASE, ALL)})
        ),
        rankers=_ranker_comparisons(result) if result.scores.secondary else [],
        all_rows=[c for c in result.comparisons if c.slice == "all" and c.days == "test" and c.against != ALL],
        sliced=[c for c in result.comparisons if c.slice != "all"],
        delong=result.delong,
        delong_caveat=DELONG_CAVEAT,
        timings=timings,
        unused=format_unused_columns(result),
        gauc_coverage=metrics.gauc_coverage(result.clicked, result.user),
        interval=_format_interval,
        label=_label,
        base_meaning=GROUPS[BASE],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page)


def read_timings(file: Path) -> list[tuple[str, float]]:
    """Read a file of lines `seconds step`, such as `12.5 produce tags`.

    Args:
        file: the file; an empty one gives an empty list.

    Returns:
        (step, seconds) of each line, in their order; a repeated step is kept.

    Raises:
        InvalidInputError: the file cannot be read, or a line (also a blank one) is not a number, a space and a name.
    """
    try:
        lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()]
        return [(step, float(seconds)) for seconds, step in lines]
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file}: not a file of lines `seconds step` ({error})") from error


def _cards(result: LiftResult) -> list[dict[str, str]]:
    """The large figures at the top: value, effect (gain, loss or empty), label, and GAUC beside AUC as the detail."""
    lift = result.find(ALL)
    assert lift is not None
    values = f"{lift.base:.4f} → {lift.with_features:.4f}"
    cards = [_card(result, ALL, "all", values, f"AUC, tabular → with all features: {lift.lift:+.4f}")]
    for name, part, label in (
        (OVER_PLACEBO, "all", "AUC over the same features with permuted content"),
        (ALL, "new products", "AUC on products new in the test"),
    ):
        if found := result.find(name, part):
            cards.append(_card(result, name, part, f"{found.lift:+.4f}", label))
    for name, label in ((CEILING, "ceiling"), ("oracle", "oracle")):
        if top := result.find(name):
            share = compute_captured_share(result.comparisons, name, result.scores.model)
            label = f"of the {label}'s lift (AUC {top.with_features:.4f})"
            cards.append({"value": f"{100 * share:.0f}%", "effect": "", "label": label, "detail": ""})
    return cards


def _card(result: LiftResult, name: str, part: str, value: str, label: str) -> dict[str, str]:
    """A card of one comparison."""
    auc, gauc = result.find(name, part), result.find(name, part, "gauc")
    assert auc is not None
    detail = f"GAUC {gauc.lift:+.4f} {_format_interval(gauc.interval)}" if gauc else ""
    label = f"{label} {_format_interval(auc.interval)}"
    return {"value": value, "effect": auc.effect, "label": label, "detail": detail}


def _group_rows(result: LiftResult) -> list[dict[str, object]]:
    """The table of groups: verdict, lift added, over the placebo and beside the others, and cost; keep comes first."""
    costs = {cost.group: cost for cost in result.costs}
    rows: list[dict[str, object]] = []
    for name, found in result.verdicts.items():
        row: dict[str, object] = {"name": name, "verdict": found.verdict, "p": found.p, "meaning": GROUPS.get(name, "")}
        row |= {"power": format_power(found), "detectable": found.detectable}
        row["features"] = result.scores.features[name]
        row["cost"] = costs.get(name, GroupCost(name))
        for days in ("validation", "test"):
            for key, label in (("added", name), ("over", f"{name} over placebo"), ("removed", f"{name}, taken away")):
                row[f"{days}_{key}"] = result.find(label, days=days)
        rows.append(row)
    order = (verdict.KEEP, verdict.NOT_PROVEN, verdict.DROP)
    return sorted(rows, key=lambda row: order.index(str(row["verdict"])))


def _ranker_comparisons(result: LiftResult) -> list[Comparison]:
    """All features against the baseline and against the placebo, for each kind of ranker, the main kind first."""
    on_test = [c for c in result.comparisons if c.slice == "all" and c.days == "test" and c.name in (ALL, OVER_PLACEBO)]
    return sorted(on_test, key=lambda c: (c.model != result.scores.model, c.name))


def _top_features(result: LiftResult, count: int = 20) -> list[tuple[str, str, float]]:
    """The `count` features with the largest gain, the largest first: name, group, share of the gain from 0 to 1."""
    by_gain = sorted(result.scores.gain.items(), key=lambda item: -item[1])[:count]
    return [
        (label_feature(feature, result.context), result.scores.group_of.get(feature, BASE), share)
        for feature, share in by_gain
    ]


def _feature_rows(result: LiftResult) -> list[dict[str, object]]:
    """Every feature with its group, its share of the gain and its meaning, by group and the largest gain first."""
    groups = list(result.scores.features)
    rows: list[dict[str, object]] = [
        {
            "name": label_feature(name, result.context),
            "group": result.scores.group_of.get(name, BASE),
            "gain": result.scores.gain.get(name, 0.0),
            "meaning": describe_feature(name, result.context),
        }
        for name in result.scores.group_of
    ]
    return sorted(rows, key=lambda row: (groups.index(str(row["group"])), -float(str(row["gain"]))))


def _by_metric(
    comparisons: Sequence[Comparison], label: Callable[[Comparison], str]
) -> Mapping[str, Mapping[str, Comparison]]:
    """Label to the comparisons with that label, by metric; in the order in which a label comes first."""
    rows: dict[str, dict[str, Comparison]] = defaultdict(dict)
    for comparison in comparisons:
        rows[label(comparison)][comparison.metric] = comparison
    return rows


def _group_shares(result: LiftResult) -> list[tuple[str, float]]:
    """Each group's share of the gain, the largest first."""
    shares: dict[str, float] = defaultdict(float)
    for feature, share in result.scores.gain.items():
        shares[result.scores.group_of.get(feature, BASE)] += share
    return sorted(shares.items(), key=lambda item: -item[1])


def _is_main(result: LiftResult, comparison: Comparison) -> bool:
    """Whether a comparison is of the main kind of ranker, or of the oracle."""
    return comparison.model in (result.scores.model, "truth")


def _label(comparison: Comparison) -> str:
    """The comparison's name as the report shows it."""
    return f"{comparison.name} (DIN)" if comparison.model == DIN else comparison.name.removeprefix(PERMUTED)


def _format_minute(timestamp: np.datetime64) -> str:
    """The time as `YYYY-MM-DD HH:MM`."""
    return str(timestamp)[:16].replace("T", " ")


def _format_interval(interval: tuple[float, float]) -> str:
    """The interval with four decimals; empty if a bound is not finite."""
    return f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" if np.isfinite(interval).all() else ""
