"""The documentation is complete: every command, option, metric, column and configuration key is in the reference."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml

from tests.deployments import ROOT, clean_environment, configure, unpack

DOCS = ROOT / "docs"
GENERATED = {"reference/commands.md", "reference/tables.md", "reference/metrics.md", "reference/configuration.md"}
GENERATED |= {"reference/errors.md", "changelog.md"}


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(hooks: ModuleType) -> dict[str, str]:
    return hooks.pages()


def commands() -> list[tuple[str, Any]]:
    from consumers import cli as consume
    from producers import cli as produce

    groups: list[tuple[str, Any]] = [
        ("produce", typer.main.get_command(produce.app)),
        ("consume", typer.main.get_command(consume.app)),
    ]
    return groups + [command for program, group in groups for command in commands_in(program, group)]


def commands_in(name: str, group: Any) -> list[tuple[str, Any]]:
    """The commands of a group and of the groups in it, with their full names."""
    own = [(f"{name} {part}", command) for part, command in group.commands.items()]
    return own + [each for part, command in own if hasattr(command, "commands") for each in commands_in(part, command)]


def test_every_command_and_visible_option_is_in_the_reference(pages: dict[str, str]) -> None:
    sections = dict(re.findall(r"^##+ ((?:produce|consume)[\w -]*)\n(.*?)(?=^##|\Z)", pages["commands"], re.M | re.S))
    for name, command in commands():
        for option in command.params:
            if not getattr(option, "hidden", False) and option.name != "help":
                assert f"`{option.opts[0]}`" in sections[name], f"{name} {option.opts[0]}"


def test_every_command_and_option_has_a_help_text() -> None:
    for name, command in commands():
        assert command.help, name
        for option in command.params:
            if not getattr(option, "hidden", False):
                assert option.help, f"{name} {option.name}"


def test_every_column_of_every_table_is_in_the_reference(pages: dict[str, str]) -> None:
    from feature_repo import schema

    for name, value in vars(schema).items():
        if isinstance(value, pa.Schema):
            section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", pages["tables"], re.M | re.S)
            assert section, name
            assert not [column for column in value.names if f"| `{column}` |" not in section[1]], name


def test_every_metric_in_the_sources_is_in_the_reference(pages: dict[str, str]) -> None:
    files = (
        "feature_repo/server/metrics.py",
        "consumers/serving/metrics.py",
        "consumers/monitoring/prometheus.py",
        "producers/streaming/metrics.py",
        "producers/studio/metrics.py",
    )
    names = {name for file in files for name in re.findall(r'"(vitrine_\w+)"', (ROOT / file).read_text())}
    assert len(names) > 20
    assert not [name for name in names if f"`{name}`" not in pages["metrics"]]


def test_every_alert_uses_metrics_that_are_in_the_reference(pages: dict[str, str]) -> None:
    rules = (ROOT / "consumers" / "monitoring" / "alerts.yaml").read_text()
    for name in set(re.findall(r"vitrine_\w+", rules)):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert f"`{name}`" in pages["metrics"] or f"`{base}`" in pages["metrics"], name


@pytest.mark.parametrize("name", ["feature_store.yaml", "feature_store.demo.yaml", "feature_store.redis.yaml"])
def test_every_key_of_the_shipped_configurations_is_in_the_reference(name: str, pages: dict[str, str]) -> None:
    settings = yaml.safe_load((ROOT / "feature_repo" / name).read_text())
    for section in ("offline_store", "online_store", "batch_engine"):
        for key in settings[section]:
            assert f"`{section}.{key}`" in pages["configuration"]


def test_the_navigation_names_every_page_and_nothing_else() -> None:
    def targets(entries: list[Any]) -> set[str]:
        found: set[str] = set()
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            found |= targets(value) if isinstance(value, list) else {value}
        return found

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    written = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert targets(navigation) == written | GENERATED


@pytest.mark.parametrize(
    "file",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda file: file.relative_to(ROOT).as_posix(),
)
def test_every_file_and_module_that_a_page_names_exists(file: Path) -> None:
    text = file.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http") and target.rpartition("../")[2] not in GENERATED | {"commands.md"}:
            base = file.parent / target
            generated = base.resolve().is_relative_to(DOCS) and base.resolve().relative_to(DOCS).as_posix() in GENERATED
            assert generated or base.exists(), target
    for path in re.findall(r"`((?:feature_repo|producers|consumers|tests|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def find_command_lines(text: str) -> set[str]:
    """The commands of `produce` and `consume` in the code of a page, except in Python, without comments."""
    text = re.sub(r" *\\\n *", " ", text)
    fenced = re.findall(r"^```(?!python)\w*\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    code = [
        *"\n".join(fenced).splitlines(),
        *re.findall(r"^(?: {4}|\t)(.*)", prose, re.M),
        *re.findall(r"`([^`]+)`", prose),
    ]
    lines = (" ".join(line.split("  #")[0].split()) for line in code)
    return {
        match[0].strip() for line in lines for match in re.finditer(r"\b(?:produce|consume) [a-z][^#|&;)\"`{}]*", line)
    }


@pytest.mark.parametrize(
    "file",
    [ROOT / "README.md", ROOT / "Makefile", *sorted(DOCS.rglob("*.md"))],
    ids=lambda file: file.relative_to(ROOT).as_posix(),
)
def test_every_command_line_of_a_page_names_a_command_and_its_options(file: Path) -> None:
    options = {
        name: {each for option in command.params for each in (*option.opts, *option.secondary_opts)}
        for name, command in commands()
    }
    for line in find_command_lines(file.read_text()):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in options), None)
        assert name, f"no such command: {line}"
        unknown = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)} - options[name] - {"--help"}
        assert not unknown, f"{name} has no {', '.join(unknown)}: {line}"


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    unpack(tmp_path / "demo")
    (tmp_path / "feature_repo").mkdir()
    settings = configure(tmp_path / "feature_repo", tmp_path / "demo")
    settings.file.rename(settings.file.with_name("feature_store.demo.yaml"))
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    checks = (
        "assert vectors.shape == (500, 12)\nassert training_set.num_rows == 1000 and training_set.num_columns > 30\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", example.replace("/path/to/demo", f"{tmp_path}/demo") + checks],
        cwd=tmp_path,
        env=clean_environment(),
        check=True,
    )


def test_a_page_installs_an_extra_before_it_shows_the_command_that_needs_it() -> None:
    page = (DOCS / "how-to" / "redis-and-postgresql.md").read_text()
    assert page.index("pip install") < page.index("feast apply")
    assert page.index("feast[grpcio]") < page.index("feast ui --host")
    own_data = (DOCS / "how-to" / "own-data.md").read_text()
    assert own_data.index("cd feature_repo && feast apply") < own_data.index("feast materialize-incremental")
