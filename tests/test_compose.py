"""compose.yaml fits what it starts: commands, options, ports, files, environment, and the monitoring.

No Docker runs it here, and the documentation says so.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from consumers import cli as consume
from producers import cli as produce
from producers.pipeline import plan
from tests.deployments import ROOT

RAW = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(RAW)
SERVICES: dict[str, Any] = COMPOSE["services"]
VITRINE = ("apply", "serve", "day")
SERVICE_KEYS = {
    *("image", "build", "command", "entrypoint", "environment", "working_dir", "profiles", "restart", "healthcheck"),
    *("ports", "volumes", "configs", "secrets", "depends_on"),
}
"""Keys of a service in the Compose Specification that are used."""


def list_options(command: str, app: typer.Typer) -> dict[str, Any]:
    """Return option -> default of a command."""
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {option: one.default for one in parameters for option in (*one.opts, *one.secondary_opts)}


def read_config(name: str) -> dict[str, Any]:
    return yaml.safe_load(COMPOSE["configs"][name]["content"])


def test_services_have_only_known_keys_and_refer_to_what_is_declared() -> None:
    assert set(COMPOSE) == {"name", "x-vitrine", "services", "configs", "secrets", "volumes"}
    for service in SERVICES.values():
        assert set(service) <= SERVICE_KEYS
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "apply" else "service_healthy"
            assert condition == {"condition": wanted}
            assert other == "apply" or "healthcheck" in SERVICES[other]
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", []):
            source = re.match(r"(\$\{[^}]*\}|[^:]+):/", volume)
            assert source is not None
            named, path = source[1] in COMPOSE["volumes"], source[1].startswith("./")
            assert named or source[1].startswith("${SHOP") or (path and (ROOT / source[1]).is_file())


def test_images_have_a_version_or_are_built_from_files_that_exist() -> None:
    for name, service in SERVICES.items():
        if name in VITRINE:
            recipe = service["build"]["dockerfile_inline"]
            copied = [word for line in re.findall(r"COPY (.*)", recipe) for word in line.split()[:-1]]
            assert {"pyproject.toml", "constraints.txt", "feature_repo", "producers", "consumers"} <= set(copied)
            assert all((ROOT / path).exists() for path in copied)
            (extras,) = re.findall(r"'\.\[(.*)\]'", recipe)
            declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
            assert set(extras.split(",")) <= declared
            assert recipe.rstrip().endswith("USER vitrine")
        else:
            assert re.fullmatch(r"[\w/]+:v?[\d.]+", service["image"])


@pytest.mark.parametrize(
    ("command", "app"), [(SERVICES["serve"]["command"], consume.app), (SERVICES["day"]["entrypoint"], produce.app)]
)
def test_commands_exist_with_the_options_that_are_given(command: list[str], app: typer.Typer) -> None:
    options = list_options(command[1], app)
    assert {word for word in command if word.startswith("--")} <= set(options)


def test_ports_are_the_defaults_of_the_server_and_open_on_the_loopback_address_only() -> None:
    options = list_options("serve", consume.app)
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published)
    served = {int(port.rpartition(":")[2]) for port in SERVICES["serve"]["ports"]}
    assert served == {options["--http-port"], options["--flight-port"]}
    assert f":{options['--http-port']}/healthz" in SERVICES["serve"]["healthcheck"]["test"][-1]
    (job,) = read_config("prometheus")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"serve:{options['--http-port']}"]
    assert job["authorization"]["credentials_file"] in SERVICES["serve"]["command"]
    assert read_config("grafana_source")["datasources"][0]["url"] == "http://prometheus:9090"


def test_prometheus_and_grafana_find_the_rules_and_the_dashboard() -> None:
    def mounts(name: str) -> dict[str, str]:
        return {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES[name]["volumes"]}

    (rules,) = read_config("prometheus")["rule_files"]
    assert (ROOT / mounts("prometheus")[rules]).name == "alerts.yaml"
    folder = read_config("grafana_dashboards")["providers"][0]["options"]["path"]
    dashboard = json.loads((ROOT / mounts("grafana")[f"{folder}/vitrine.json"]).read_text())
    assert dashboard["templating"]["list"][0]["query"] == read_config("grafana_source")["datasources"][0]["type"]


def test_the_deployment_has_its_variables_and_its_tables_lie_on_a_volume() -> None:
    for name in VITRINE:
        environment = SERVICES[name]["environment"]
        file = ROOT / Path(environment["FEAST_FS_YAML_FILE_PATH"]).relative_to("/app")
        content = file.read_text()
        needed = set(re.findall(r"\$\{(\w+)\}", content))
        assert needed == set(environment) - {"FEAST_FS_YAML_FILE_PATH"}
        tables = yaml.safe_load(content)["offline_store"]["path"]
        assert f"tables:/app/{Path(tables).parts[1]}" in SERVICES[name]["volumes"]
        assert "@postgres/" in environment["VITRINE_REGISTRY"]
        assert environment["VITRINE_REDIS"].startswith("redis:6379,")
    assert SERVICES["day"]["entrypoint"][-1] == f"/shop/{plan.FILE_NAME}"


def test_no_secret_has_a_default_and_the_page_names_all_of_them() -> None:
    variables = set(re.findall(r"\$\{(\w+)", RAW))
    assert set(re.findall(r"\$\{(\w+):\?\}", RAW)) == variables - {"SHOP"}
    page = (ROOT / "docs" / "how-to" / "daily.md").read_text()
    assert all(name in page for name in variables)
    assert "has not been run" in page
