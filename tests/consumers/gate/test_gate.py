"""A candidate passes a gate if what it measures reaches the limit; the measures equal a brute-force computation."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from consumers import cli
from consumers.gate import measures
from consumers.gate.check import check_candidate, format_html, make_hit_rate_gate
from consumers.gate.measures import Mean
from consumers.gate.options import GateLimits
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError, UsageError
from feature_repo.gate_report import read_report
from feature_repo.offline import delta, production
from tests.feature_repo.features import world
from tests.feature_repo.features.world import LISTED, RANKED

OLD, NEW = world.ENCODER, "next@2"
RUNNER = CliRunner()
LOST = 4
"""Rows of each table that the candidate lacks."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small shop. The candidate lacks LOST rows of each table, and has noisy vectors and some other ages."""
    settings = world.deployment(tmp_path_factory.mktemp("gate") / "shop")
    world.write(world.small_shop(), settings)
    production.record_first_version(settings.offline, OLD, LISTED)
    rng = np.random.default_rng(1)
    for table in schema.ENCODER_TABLES:
        path = settings.table(table)
        if not delta.exists(path):
            continue
        rows = [row | {"encoder_version": NEW} for row in delta.read(path).to_pylist()][LOST:]
        for i, row in enumerate(rows):
            if table == schema.EMBEDDING_TABLE:
                row["fused_vector"] = (np.array(row["fused_vector"]) + rng.normal(size=world.WIDTH) * 0.1).tolist()
            if table == schema.TAGS_TABLE:
                row["child_age"] = ("0-6m", "3-6y")[i % 2]
        delta.append(path, pa.Table.from_pylist(rows, delta.open_dataset(path).schema))
    path = settings.table(schema.TAGS_TABLE)
    labelled = [
        row | {"child_age": "0-6m", "created_timestamp": LISTED + timedelta(days=1)}
        for row in delta.read(path).to_pylist()
        if row["encoder_version"] == OLD
    ]
    delta.append(path, pa.Table.from_pylist(labelled, delta.open_dataset(path).schema))
    return settings


def test_coverage_is_the_share_of_keys_that_both_versions_have(settings: Settings) -> None:
    for table, rows in (("product_codes", 33), ("product_embedding", 35), ("user_interest", 8)):
        share, count = measures.measure_coverage(settings, table, OLD, NEW)
        assert count == rows
        assert share == pytest.approx((rows - LOST) / rows)
    assert measures.measure_coverage(settings, "product_neighbours", OLD, NEW) is None
    assert measures.measure_coverage(settings, "product_codes", NEW, OLD)[0] == 1.0


def test_overlap_equals_a_brute_force_computation(settings: Settings) -> None:
    vectors = {
        version: {
            row["product_id"]: np.array(row["fused_vector"])
            for row in delta.read(settings.table("product_embedding")).to_pylist()
            if row["encoder_version"] == version and row["fused_vector"] is not None
        }
        for version in (OLD, NEW)
    }
    shared = sorted(vectors[OLD].keys() & vectors[NEW].keys())

    def nearest(version: str, product: str) -> set[str]:
        own = vectors[version][product]

        def cosine(other: str) -> float:
            vector = vectors[version][other]
            return float(own @ vector / np.linalg.norm(own) / np.linalg.norm(vector))

        return set(sorted((other for other in shared if other != product), key=cosine)[-5:])

    expected = np.mean([len(nearest(OLD, product) & nearest(NEW, product)) / 5 for product in shared])
    overlap = measures.measure_overlap(settings, OLD, NEW, top_k=5, seed=0)
    assert (overlap.value, overlap.count) == (pytest.approx(expected), len(shared))
    assert 0 < overlap.value < 1
    assert measures.measure_overlap(settings, OLD, OLD, top_k=5, seed=0).value == 1


def test_agreement_counts_products_with_the_same_newest_tag(settings: Settings) -> None:
    agreement = measures.measure_tag_agreement(settings, "child_age", OLD, NEW)
    rows = [row for row in delta.read(settings.table("product_tags")).to_pylist() if row["encoder_version"] == NEW]
    assert agreement.value == pytest.approx(np.mean([row["child_age"] == "0-6m" for row in rows]))
    assert agreement.count == len(rows)
    assert measures.measure_tag_agreement(settings, "category", OLD, NEW).count == 0


def test_a_gate_passes_at_its_limit_and_fails_below_it_or_without_observations(settings: Settings) -> None:
    overlap = measures.measure_overlap(settings, OLD, NEW, top_k=10, seed=0).value
    agreement = measures.measure_tag_agreement(settings, "child_age", OLD, NEW).value
    exact = GateLimits(min_coverage=0.5, min_overlap=overlap, min_tag_agreement=agreement)
    assert not check_candidate(settings, NEW, exact, None, seed=0, now=RANKED).failures
    above = GateLimits(min_coverage=0.9, min_overlap=overlap + 1e-9, min_tag_agreement=agreement + 1e-9)
    report = check_candidate(settings, NEW, above, None, seed=0, now=RANKED)
    failed = {gate.name for gate in report.failures}
    assert failed == {
        "coverage of product_embedding",
        "coverage of product_tags",
        "coverage of product_codes",
        "coverage of user_interest",
        "neighbour overlap",
        "agreement of child_age",
    }
    assert "6 gates failed" in format_html(report)
    assert np.isnan(Mean.of(np.empty(0)).value)
    with pytest.raises(NotFoundError, match="no vectors of third@3"):
        check_candidate(settings, "third@3", exact, None, seed=0, now=RANKED)
    with pytest.raises(InvalidInputError, match=f"{OLD} is in production; name the candidate"):
        check_candidate(settings, OLD, exact, None, seed=0, now=RANKED)


def test_the_command_writes_a_report_that_reads_back_and_exits_with_1_if_a_gate_fails(
    settings: Settings, tmp_path: Path
) -> None:
    output = tmp_path / "gate.json"
    line = ["gate", "--candidate", NEW, "--output", str(output), "--store", str(settings.file)]
    result = RUNNER.invoke(cli.app, line)
    assert result.exit_code == 1, result.output
    report = read_report(output)
    assert (report.candidate_version, report.production_version) == (NEW, OLD)
    assert [gate.name for gate in report.gates] == [gate["name"] for gate in json.loads(output.read_text())["gates"]]
    assert "neighbour overlap" in output.with_suffix(".html").read_text()
    assert RUNNER.invoke(cli.app, [*line, "--min-coverage", "0.5", "--min-tag-agreement", "0"]).exit_code == 0
    output.write_text("{}")
    with pytest.raises(InvalidInputError, match="is not a report of `consume gate`: 'gates'"):
        read_report(output)


def test_a_report_without_gates_or_with_another_verdict_than_true_or_false_does_not_pass(tmp_path: Path) -> None:
    gate = {"name": "coverage", "passed": "false", "value": 0.0, "limit": 1.0, "detail": ""}
    for number, gates in enumerate(([], [gate])):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"candidate_version": NEW, "production_version": OLD, "gates": gates}))
        with pytest.raises(InvalidInputError, match="expected one gate or more, each with `passed` true or false"):
            read_report(file)


def test_a_report_says_when_it_was_made(tmp_path: Path) -> None:
    gate = {"name": "coverage", "passed": True, "value": 1.0, "limit": 1.0, "detail": ""}
    report = {"candidate_version": NEW, "production_version": OLD, "created": "2026-01-01T00:00:00", "gates": [gate]}
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(report))
    with pytest.raises(InvalidInputError, match="expected `created` with a time zone"):
        read_report(file)


def test_a_report_is_not_written_over_by_its_page(tmp_path: Path) -> None:
    result = RUNNER.invoke(cli.app, ["gate", "--candidate", NEW, "--output", str(tmp_path / "gate.html")])
    assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [(0.5, 0.49, True), (0.5, 0.47, False), (0.5, np.nan, False), (np.nan, 0.5, False), (np.nan, np.nan, False)],
)
def test_a_hit_rate_that_fell_too_far_or_is_undefined_fails(before: float, after: float, passed: bool) -> None:
    gate = make_hit_rate_gate(before, after, 0.02)
    assert gate.passed is passed
    assert (gate.value is None) == bool(np.isnan(before) or np.isnan(after))
