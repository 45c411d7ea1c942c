"""The Prometheus metrics, and the dashboard and the alerts that use them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumers import monitoring
from consumers.monitoring.prometheus import CheckCollector
from consumers.monitoring.watcher import Watcher
from consumers.serving.metrics import Metrics
from tests.consumers.monitoring.conftest import NOW, clock, failing

FOLDER = Path(monitoring.__file__).parent
PROMTOOL = shutil.which("promtool")
LABELS = ("check", "view", "slice", "subject", "statistic", "percentile", "fault", "step", "reason", "side")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool: Debian's package prometheus has it")


def exported(watcher: Watcher) -> str:
    registry = Metrics().registry
    registry.register(CheckCollector(watcher.states))
    return generate_latest(registry).decode()


def families(watcher: Watcher) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(exported(watcher))}


def values(watcher: Watcher, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's samples by their label values, which are in the order of LABELS."""
    samples = families(watcher)[name].samples
    return {tuple(one.labels[label] for label in LABELS if label in one.labels): one.value for one in samples}


def test_the_prometheus_parser_reads_the_results(watcher: Watcher) -> None:
    freshness, consistency, drift = (state.figures or {} for state in watcher.states())
    tags = next(one for one in freshness["slices"] if one["view"] == "product_tags" and one["slice"] == "all")
    assert values(watcher, "vitrine_slice_coverage_ratio")["product_tags", "all"] == 1
    assert values(watcher, "vitrine_slice_lag_seconds")["product_tags", "all", "95"] == tags["lag"]["p95"]
    assert values(watcher, "vitrine_slice_waiting")["product_embedding", "all"] > 0
    missing = consistency["views"][0]["faults"]["missing"]
    assert values(watcher, "vitrine_consistency_fault_keys")["product_tags", "missing"] == missing > 0
    alarm = ("product_embedding", "image_vector", "missing")
    assert values(watcher, "vitrine_drift_statistic")[alarm] == 1
    assert values(watcher, "vitrine_drift_statistic")[alarm] > values(watcher, "vitrine_drift_threshold")[alarm]
    assert values(watcher, "vitrine_drift_alarms")[()] == len(drift["breaches"])
    assert values(watcher, "vitrine_check_refreshed_timestamp_seconds") == dict.fromkeys(
        [("freshness",), ("consistency",), ("drift",)], NOW.timestamp()
    )
    assert values(watcher, "vitrine_view_produced_timestamp_seconds")[("product_embedding",)] == pytest.approx(
        NOW.timestamp() - 30 * 3600, abs=60
    )
    assert list(values(watcher, "vitrine_quarantined_rows").values()) == [1]


def test_unknown_values_have_no_sample(watcher: Watcher) -> None:
    assert ("product_codes",) not in values(watcher, "vitrine_view_watermark_timestamp_seconds")
    assert not values(watcher, "vitrine_slice_served_coverage_ratio"), "no impressions were given"
    unknowing = Watcher([failing("freshness")], clock)
    assert values(unknowing, "vitrine_check_breaches") == {}
    assert values(unknowing, "vitrine_objectives_missed") == {}
    assert values(unknowing, "vitrine_check_failed") == {("freshness",): 0}, "not tried yet"


def test_a_failed_check_is_reported(watcher: Watcher) -> None:
    unknowing = Watcher([failing("freshness")], clock)
    assert unknowing.run_check("freshness").failure == "the store does not answer"
    assert values(unknowing, "vitrine_check_failed") == {("freshness",): 1}


def asked_by(expression: str) -> set[str]:
    """Return the metric families in a PromQL expression."""
    names = re.findall(r"\bvitrine_[a-z_]+", re.sub(r"\{[^}]*\}", "", expression))
    return {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names}


def dashboard() -> list[str]:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def alerts() -> list[dict]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_dashboard_and_the_alerts_use_existing_metrics(watcher: Watcher) -> None:
    there = families(watcher).keys()
    requested = [asked_by(one) for one in (*dashboard(), *(rule["expr"] for rule in alerts()))]
    assert all(requested)
    assert set().union(*requested) <= there


def test_the_dashboard_shows_every_metric_that_the_checks_export(watcher: Watcher) -> None:
    registry = CollectorRegistry()
    registry.register(CheckCollector(watcher.states))
    there = {family.name for family in registry.collect()}
    assert there <= set().union(*map(asked_by, dashboard()))


def test_alerts_use_existing_labels(watcher: Watcher) -> None:
    there = families(watcher)
    for rule in alerts():
        for name, labels in re.findall(r"\b(vitrine_(?!serving)[a-z_]+)\{([^}]*)\}", rule["expr"]):
            known = {label for sample in there[name].samples for label in sample.labels}
            assert set(re.findall(r"(\w+)=", labels)) <= known, rule["alert"]


def test_every_alert_says_what_to_do_first_here_and_in_the_documentation() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "how-to" / "on-call.md").read_text()
    for rule in alerts():
        assert rule["annotations"].keys() == {"summary", "first"}
        assert f"### {rule['alert']}\n" in manual
    assert len(re.findall(r"^### Vitrine\w+$", manual, re.MULTILINE)) == len(alerts())


@needs_promtool
def test_promtool_accepts_the_metrics(watcher: Watcher) -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=exported(watcher), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_promtool
def test_promtool_accepts_the_rules_and_their_tests(tmp_path: Path) -> None:
    for file in (FOLDER / "alerts.yaml", Path(__file__).parent / "alerts_test.yaml"):
        shutil.copy(file, tmp_path)
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([str(PROMTOOL), *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
