"""All gates of one candidate, and the report."""

import math
from datetime import datetime
from html import escape

from consumers.gate import measures
from consumers.gate.measures import Mean
from consumers.gate.options import ClickLogOptions, GateLimits
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.gate_report import Gate, GateReport
from feature_repo.offline import production

TOP_K = 10
"""Nearest products that are compared."""


def check_candidate(
    settings: Settings, candidate: str, limits: GateLimits, log: ClickLogOptions | None, *, seed: int, now: datetime
) -> GateReport:
    """Compare a candidate with the version in production. Nothing but the log's quarantine is written.

    Args:
        settings: the deployment.
        candidate: the encoder version, whose rows must be in the offline tables.
        limits: the values that pass.
        log: the log on which both are compared; None leaves out hit rate and AUC.
        seed: of the samples of products.
        now: the time of the report, with a time zone.

    Raises:
        NotFoundError: no version is in production, or the candidate has no vectors.
        InvalidInputError: the candidate is the version in production, or the log is unusable.
    """
    version = production.read_version(settings.offline)
    if candidate == version:
        raise InvalidInputError(f"{candidate} is in production; name the candidate that is compared with it")
    if version is None or candidate not in production.count_products(settings.offline):
        raise NotFoundError(
            f"no vectors of {candidate}, or no version in production; run `produce upgrade start` and `advance`"
        )
    gates = _check_tables(settings, version, candidate, limits, seed)
    if log is not None:
        gates += _check_log(settings, (version, candidate), limits, log, now)
    return GateReport(candidate, version, now, tuple(gates))


def format_html(report: GateReport) -> str:
    """Return a report as an HTML page that needs nothing else."""
    rows = "".join(
        f"<tr class={'passed' if gate.passed else 'failed'}><td>{'passed' if gate.passed else 'FAILED'}</td>"
        f"<td>{escape(gate.name)}</td><td>{_format_number(gate.value)}</td><td>{_format_number(gate.limit)}</td>"
        f"<td>{escape(gate.detail)}</td></tr>"
        for gate in report.gates
    )
    verdict = f"{len(report.failures)} gates failed" if report.failures else "every gate passed"
    return (
        "<!doctype html><meta charset=utf-8><title>Encoder gate</title><style>body{font:15px system-ui;margin:2em}"
        "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ddd}.failed td{background:#fdd}</style>"
        f"<h1>{verdict}</h1><p>candidate {escape(report.candidate_version)}, in production "
        f"{escape(report.production_version)}, {report.created:%Y-%m-%d %H:%M} UTC</p><table><tr><th>gate<th>measure"
        f"<th>value<th>limit<th>meaning</tr>{rows}</table>\n"
    )


def _check_tables(settings: Settings, version: str, candidate: str, limits: GateLimits, seed: int) -> list[Gate]:
    gates = []
    for table in schema.ENCODER_TABLES:
        coverage = measures.measure_coverage(settings, table, version, candidate)
        if coverage is not None:
            share, rows = coverage
            detail = f"{share:.2%} of the {rows:,} rows of {version}"
            gates.append(Gate(f"coverage of {table}", share >= limits.min_coverage, share, limits.min_coverage, detail))
    overlap = measures.measure_overlap(settings, version, candidate, top_k=TOP_K, seed=seed)
    gates.append(
        _make_mean_gate("neighbour overlap", overlap, limits.min_overlap, f"of the {TOP_K} nearest products agree")
    )
    for tag in schema.TAGS:
        agreement = measures.measure_tag_agreement(settings, tag, version, candidate)
        if agreement.count:
            name = f"agreement of {tag}"
            gates.append(_make_mean_gate(name, agreement, limits.min_tag_agreement, "of the products keep the value"))
    return gates


def _check_log(
    settings: Settings, versions: tuple[str, str], limits: GateLimits, log: ClickLogOptions, now: datetime
) -> list[Gate]:
    from consumers.gate.clicks import ALL_ROWS, measure_clicks

    clicks = measure_clicks(settings, log, versions, now=now)
    gates = [make_hit_rate_gate(*clicks.hit_rate, limits.max_hit_rate_loss)]
    for name, auc in clicks.auc.items():
        detail = f"{auc.value:+.4f} [{auc.low:+.4f}, {auc.high:+.4f}] on {auc.rows:,} test rows"
        is_gate = name == ALL_ROWS  # a slice of few rows has a wide interval: it is shown, not judged
        passed = not is_gate or auc.low >= -limits.max_auc_loss
        limit = -limits.max_auc_loss if is_gate else None
        gates.append(Gate(f"AUC, {name}", passed, _to_finite(auc.value), limit, detail))
    return gates


def make_hit_rate_gate(before: float, after: float, max_loss: float) -> Gate:
    """Return the gate of the next-click hit rate in production and with the candidate; it fails if one is NaN."""
    detail = f"{before:.3f} in production, {after:.3f} with the candidate"
    return Gate("next-click hit rate", after >= before - max_loss, _to_finite(after - before), -max_loss, detail)


def _make_mean_gate(name: str, mean: Mean, limit: float, meaning: str) -> Gate:
    """Return the gate of a mean, which passes if its value is at least the limit; without observations it fails."""
    detail = f"{mean.value:.1%} [{mean.low:.1%}, {mean.high:.1%}] {meaning}, of {mean.count:,}"
    return Gate(name, mean.value >= limit, _to_finite(mean.value), limit, detail)


def _to_finite(value: float) -> float | None:
    """Return the value; None for NaN, which JSON lacks."""
    return None if math.isnan(value) else value


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
