"""The options that every command with a shop's table has."""

import typer
from typer.testing import CliRunner

from consumers import cli as consume
from feature_repo.table_format import TableFormat
from feature_repo.table_options import with_table_options
from producers import cli as produce


def test_a_command_gets_the_four_options_as_one_format() -> None:
    seen: list[tuple[str, TableFormat]] = []

    @with_table_options
    def command(name: str = "x", *, table_format: TableFormat) -> None:
        seen.append((name, table_format))

    app = typer.Typer()
    app.command()(command)
    options = ["--delimiter", "tab", "--columns", "sku=product_id", "--columns", "t=title", "--timezone", "+08:00"]
    assert CliRunner().invoke(app, ["--name", "y", "--encoding", "gbk", *options]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0
    given = TableFormat("gbk", "\t", {"sku": "product_id", "t": "title"}, "+08:00")
    assert seen == [("y", given), ("x", TableFormat())]


def test_every_command_that_reads_a_table_has_the_options() -> None:
    reads = {
        *("catalogue", "images", "encoder", "embeddings", "tags", "interests", "neighbours", "stream"),
        *("lift", "gate", "export-training", "freshness", "consistency", "serve"),
    }
    with_options = {
        name
        for app in (produce.app, consume.app)
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        if {"encoding", "delimiter", "columns", "timezone"} <= {option.name for option in command.params}
    }
    assert with_options == reads
