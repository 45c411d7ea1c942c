"""The pipeline of `produce day`: its file, and the commands that it stands for."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_repo.errors import ConflictError, NotFoundError, UsageError
from producers import cli
from producers.pipeline import plan
from producers.pipeline.plan import load_pipeline, write_template

VALUES = {
    "products": "/shop/today's products.parquet",
    "impressions": "/shop/log.parquet",
    "now": "2026-01-02T03:04:05",
}


def write(folder: Path, content: str) -> Path:
    (folder / "vitrine.toml").write_text(content)
    return folder / "vitrine.toml"


def test_a_written_template_has_all_steps_in_their_order_with_values_in_place_of_names(tmp_path: Path) -> None:
    file = tmp_path / "vitrine.toml"
    write_template(file, {"encoder": 'my "best" encoder', "labels": "labels.csv"}, has_impressions=True)
    pipeline = load_pipeline(file, VALUES)
    assert [step.name for step in pipeline.steps] == [
        "catalogue",
        "embeddings",
        "tags",
        "codes",
        "interests",
        "neighbours",
        "materialize-incremental",
    ]
    assert pipeline.steps[0].command == ("produce", "catalogue", "--products", VALUES["products"])
    assert pipeline.steps[1].command == ("produce", "embeddings", "--encoder", 'my "best" encoder')
    assert pipeline.steps[-1].command == ("feast", "materialize-incremental", VALUES["now"])
    assert [check.name for check in pipeline.checks] == ["freshness"]
    assert pipeline.folder == tmp_path.resolve()


def test_a_template_leaves_out_the_steps_for_which_there_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "vitrine.toml"
    write_template(file, {"encoder": "e", "labels": None}, has_impressions=False)
    pipeline = load_pipeline(file, {"products": "p", "impressions": None, "now": "n"})
    assert [step.name for step in pipeline.steps] == ["catalogue", "embeddings", "codes", "materialize-incremental"]
    assert pipeline.checks == ()
    with pytest.raises(ConflictError, match="exists already"):
        write_template(file, {"encoder": "e", "labels": None}, has_impressions=False)


def test_a_step_that_occurs_twice_has_two_names(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[pipeline]\nsteps = ["produce codes", "produce codes --seed 1"]\nchecks = ["consume drift"]\n'
    )
    assert [step.name for step in load_pipeline(file, VALUES).steps] == ["codes", "codes 2"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[pipeline\n", "no usable pipeline"),
        ("[defaults]\n", "no usable pipeline"),
        ("pipeline = 3\n", "no usable pipeline"),
        ("[pipeline]\nsteps = []\n", "must be lists of texts"),
        ('[pipeline]\nsteps = "produce codes"\n', "must be lists of texts"),
        ('[pipeline]\nsteps = ["produce codes"]\ntop_k = 5\n', "must be lists of texts"),
        ('[pipeline]\nsteps = ["rm -rf data"]\n', "is no command of produce, consume, feast"),
        ('[pipeline]\nsteps = ["produce"]\n', "is no command of produce, consume, feast"),
        ('[pipeline]\nsteps = ["produce day"]\n', "is no command of produce, consume, feast"),
        ('[pipeline]\nsteps = ["produce codes \'open"]\n', "is not a command line"),
        ('[pipeline]\nsteps = ["produce codes {}"]\n', "is not a command line"),
        ('[pipeline]\nsteps = ["produce tags --labels {labels}"]\n', 'needs labels: add labels = "..." to the section'),
        ('[pipeline]\nsteps = ["produce interests --impressions {impressions}"]\n', "give --impressions, or remove"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_before_anything_runs(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load_pipeline(write(tmp_path, content), VALUES | {"impressions": None})
    assert reason in str(raised.value)


def test_without_a_file_the_error_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="produce day --init --encoder DIR"):
        load_pipeline(tmp_path / "vitrine.toml", VALUES)


def test_every_step_of_the_template_is_a_command_with_these_options() -> None:
    for line in (*plan.STEPS, *plan.CHECKS):
        program, command, *arguments = line.split()
        if program == "produce":
            known = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"}).output
            assert all(word in known for word in arguments if word.startswith("--"))
