"""The options of every command that reads a shop's tables: --encoding, --delimiter, --columns and --timezone."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

_PARAMETER = "table_format"
_OPTIONS = {
    "encoding": Annotated[
        str | None,
        typer.Option(
            help="Encoding of CSV files, such as gbk, utf-16 or cp1252.",
            show_default="utf-8, or by the byte order mark",
        ),
    ],
    "delimiter": Annotated[
        str | None,
        typer.Option(
            help="Character between the columns of CSV files; `tab` for tabs.", show_default="found in the header"
        ),
    ],
    "columns": Annotated[
        list[str] | None,
        typer.Option(metavar="THEIRS=OURS", help="Read column THEIRS of the file as column OURS; may be repeated."),
    ],
    "timezone": Annotated[
        str | None,
        typer.Option(
            help="Time zone of timestamps without one, such as Asia/Shanghai, +08:00 or UTC.",
            show_default="they are refused",
        ),
    ],
}


def with_table_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command for typer. They apply to each table of a shop that the command reads.

    Args:
        command: a function with a keyword parameter `table_format`, which gets the options as one TableFormat.

    Returns:
        The command with the four options in the place of that parameter. It raises UsageError for an invalid one.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        from feature_repo.table_format import TableFormat

        values = {name: arguments.pop(name, None) for name in _OPTIONS}
        command(**arguments, table_format=TableFormat.from_options(**values))

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == _PARAMETER:
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                for name, annotation in _OPTIONS.items()
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
