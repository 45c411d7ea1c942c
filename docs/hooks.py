"""MkDocs hook: write the reference pages from the code, so that they cannot differ from it.

reference/commands.md        every command and option of `produce` and `consume`
reference/tables.md          every table and column, from feature_repo/schema.py
reference/metrics.md         every Prometheus metric
reference/configuration.md   every key of feature_store.yaml that Vitrine reads
reference/errors.md          error classes and their status codes
"""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer

ROOT = Path(__file__).parent.parent
EXIT_CODES = """Exit codes: 0 success; 1 an error in the data or a store, or an exceeded threshold; 2 an invalid command
line; 3 nothing could be checked, or for `produce day` a failed check; 130 Ctrl-C.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text()))
    return files


def pages() -> dict[str, str]:
    """Return the Markdown text of each generated page, by name."""
    return {
        "commands": commands_page(),
        "tables": tables_page(),
        "metrics": metrics_page(),
        "configuration": configuration_page(),
        "errors": errors_page(),
    }


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table. Vertical bars in cells are escaped."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    cells = ([" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def commands_page() -> str:
    """Return the page of commands and options. Hidden options are left out."""
    from consumers import cli as consume
    from producers import cli as produce

    parts = ["# Commands\n", EXIT_CODES]
    for program, app in (("produce", produce.app), ("consume", consume.app)):
        group: Any = typer.main.get_command(app)  # typer carries its own click
        parts.append(f"## {program}\n\n{group.help or ''}\n\n{options_of(group)}")
        parts += [
            f"### {name}\n\n{inspect.cleandoc(command.help or '')}\n\n{options_of(command)}"
            for name, command in list_commands(program, group)
        ]
    return "\n".join(parts)


def list_commands(name: str, group: Any) -> list[tuple[str, Any]]:
    """Return the commands of a group and of the groups in it, with their full names."""
    found = []
    for part, command in group.commands.items():
        found.append((f"{name} {part}", command))
        if hasattr(command, "commands"):
            found += list_commands(f"{name} {part}", command)
    return found


def options_of(command: Any) -> str:
    """Return the table of a command's options."""
    context = command.context_class(command)
    rows = []
    for option in command.get_params(context):
        if getattr(option, "hidden", False) or option.name == "help":
            continue
        names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
        record = option.get_help_record(context)
        text = record[1] if record else getattr(option, "help", "") or ""
        rows.append((names, text))
    return table(("option", "meaning"), rows) if rows else ""


def tables_page() -> str:
    """Return the page of tables and columns."""
    from feature_repo import schema

    parts = ["# Tables\n", f"{inspect.getdoc(schema)}\n"]
    source = inspect.getsource(schema)
    for name, (text, doc) in documented_names(source, ast.parse(source).body).items():
        value = getattr(schema, name)
        if isinstance(value, pa.Schema):
            remarks = dict(column_remarks(text, vars(schema)))
            rows = ((f"`{field.name}`", f"`{field.type}`", remarks.get(field.name, "")) for field in value)
            parts.append(f"## {name}\n\n{doc}\n\n{table(('column', 'type', 'meaning'), rows)}")
    return "\n".join(parts)


def documented_names(source: str, body: list[ast.stmt]) -> dict[str, tuple[str, str]]:
    """Return the text and the docstring below ("" if there is none) of each assignment of a module or class, by name.

    Args:
        source: the text that `body` was parsed from.
        body: the statements of the module or class.
    """
    documented = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name):
            doc = following.value if isinstance(following, ast.Expr) else None
            text = str(doc.value) if isinstance(doc, ast.Constant) else ""
            documented[target.id] = (ast.get_source_segment(source, node) or "", inspect.cleandoc(text))
    return documented


def column_remarks(text: str, names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (column, comment) of each line `(NAME, type),  # comment`; a comment may go on below."""
    column = None
    parts: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline):
        first = token.line.strip().lstrip("(").split(",")[0].strip()
        if token.type == tokenize.COMMENT:
            if first.startswith("#"):
                parts.append(token.string.lstrip("# "))
                continue
            if column is not None:
                yield column, " ".join(parts)
            column = first.strip("\"'") if first[:1] in "\"'" else str(names.get(first, first))
            parts = [token.string.lstrip("# ")]
    if column is not None:
        yield column, " ".join(parts)


def metrics_page() -> str:
    """Return the page of Prometheus metrics."""
    from consumers.monitoring.prometheus import CheckCollector
    from consumers.serving.metrics import Metrics
    from producers.streaming.metrics import StreamMetrics
    from producers.studio.metrics import StudioMetrics

    sources = {
        "`consume serve`": Metrics().registry.collect(),
        "`consume serve --watch`": CheckCollector(list).collect(),
        "`produce stream --metrics-port`": StreamMetrics(None).registry.collect(),
        "`produce studio`": StudioMetrics().registry.collect(),
    }
    parts = ["# Metrics\n", "Seconds are floating-point; timestamps are seconds since 1970 UTC.\n"]
    for source, families in sources.items():
        rows = ((f"`{family.name}`", family.type, family.documentation) for family in families)
        parts.append(f"## {source}\n\n{table(('metric', 'type', 'meaning'), sorted(rows))}")
    return "\n".join(parts)


def configuration_page() -> str:
    """Return the page of the keys of feature_store.yaml."""
    from feature_repo.stores.engine import ColumnarEngineConfig
    from feature_repo.stores.offline import DeltaOfflineStoreConfig
    from feature_repo.stores.online import LMDBOnlineStoreConfig, RedisOnlineStoreConfig

    parts = ["# Configuration\n", "`feature_store.yaml` is Feast's own file. Vitrine's plug-ins read these keys.\n"]
    for section, kind in (
        ("offline_store", DeltaOfflineStoreConfig),
        ("online_store", LMDBOnlineStoreConfig),
        ("online_store", RedisOnlineStoreConfig),
        ("batch_engine", ColumnarEngineConfig),
    ):
        source = textwrap.dedent(inspect.getsource(kind))
        (definition,) = ast.parse(source).body
        docs = documented_names(source, definition.body)
        rows = (
            (f"`{section}.{name}`", "required" if field.is_required() else f"`{field.default!r}`", docs[name][1])
            for name, field in kind.model_fields.items()
        )
        title = kind.__name__.removesuffix("Config")
        parts.append(f"## {title}\n\n{inspect.getdoc(kind)}\n\n{table(('key', 'default', 'meaning'), rows)}")
    return "\n".join(parts)


def errors_page() -> str:
    """Return the page of error classes."""
    from feature_repo import errors

    rows = [
        (f"`{name}`", f"`{kind.__mro__[1].__name__}`", inspect.getdoc(kind) or "")
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return f"# Errors\n\n{table(('class', 'base', 'meaning'), rows)}"
