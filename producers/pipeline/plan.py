"""The steps of `produce day`, from the section `pipeline` of a TOML file.

    [pipeline]
    encoder = "encoders/shop"
    steps = ["produce catalogue --products {products}", "produce embeddings --encoder {encoder}"]
    checks = ["consume freshness --max-age 2d"]

A step is a command line of `produce`, `consume` or `feast`. Names in braces stand for options of `produce day`, for
`now`, the time at which it began, and for the other keys of the section.
"""

import json
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import ConflictError, NotFoundError, UsageError
from feature_repo.files.atomic_write import write_text

FILE_NAME = "vitrine.toml"
"""Name of the file beside feature_store.yaml, if no other is given."""
PROGRAMS = ("produce", "consume", "feast")
GIVEN = ("products", "impressions", "now")
"""Names that `produce day` gives a value."""

TEMPLATE = """\
# What `produce day` runs, in this order. A step that fails ends the day; the same command goes on with that step.
# {products} and {impressions} are options of `produce day`; {now} is the time at which it began, in UTC. Other names in
# braces are keys of this section. Commands start in the folder of this file, `feast` in that of the feature views.
# Run `feast apply` once before the first day.
"""
OPTION_LINES = {
    "encoder": "produce embeddings --encoder {encoder}",
    "labels": "produce tags --labels {labels}",
}
STEPS = (
    "produce catalogue --products {products}",
    OPTION_LINES["encoder"],
    OPTION_LINES["labels"],
    "produce codes",
    "produce interests --impressions {impressions}",
    "produce neighbours --impressions {impressions}",
    "feast materialize-incremental {now}",
)
CHECKS = ("consume freshness --max-age 2d",)
"""Checks of a deployment that has all steps; `consume freshness` reports each view without a table."""


@dataclass(frozen=True)
class PipelineStep:
    """A command to run."""

    name: str
    """The command's name, such as "catalogue"; "catalogue 2" for the second one of a pipeline."""
    command: tuple[str, ...]
    """The program, which is one of PROGRAMS, and its arguments."""


@dataclass(frozen=True)
class DayPipeline:
    """What `produce day` runs."""

    folder: Path
    """The folder of the file, where commands start."""
    text: str
    """The file's content."""
    steps: tuple[PipelineStep, ...]
    """Run in order until one fails; at least one."""
    checks: tuple[PipelineStep, ...]
    """Run after the steps, all of them."""


def load_pipeline(file: Path, values: Mapping[str, str | None]) -> DayPipeline:
    """Read the pipeline and put values in place of names.

    Args:
        file: the TOML file.
        values: values of the names in GIVEN; None for an option that was not given.

    Raises:
        NotFoundError: the file does not exist.
        UsageError: it is not TOML, has no section `pipeline` with `steps`, or has a step that is not a command line of
            PROGRAMS, or one with a name in braces that has no value.
    """
    if not file.exists():
        raise NotFoundError(f"{file}: no such file; `produce day --init --encoder DIR` writes one")
    try:
        text = file.read_text()
        section = tomllib.loads(text)["pipeline"]
        steps, checks = section["steps"], section.get("checks", [])
        more = {name: value for name, value in section.items() if name not in ("steps", "checks")}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file}: no usable pipeline ({error}); it needs a section `pipeline` with `steps`") from error
    lists = all(isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in (steps, checks))
    if not lists or not steps or not all(isinstance(value, str) for value in more.values()):
        raise UsageError(f"{file}: `steps` and `checks` must be lists of texts, `steps` not empty, other keys texts")
    names: Counter[str] = Counter()
    every = [_parse_step(file, line, {**more, **values}, names) for line in (*steps, *checks)]
    return DayPipeline(file.parent.resolve(), text, tuple(every[: len(steps)]), tuple(every[len(steps) :]))


def write_template(file: Path, values: Mapping[str, str | None], *, has_impressions: bool) -> None:
    """Write a pipeline with all steps that the values allow.

    Args:
        file: the TOML file to write.
        values: "encoder" and "labels" -> path; None leaves the step out.
        has_impressions: whether the shop has a log of impressions; without one, steps that need it are left out. A
            pipeline without some steps has no checks.

    Raises:
        ConflictError: the file exists.
    """
    if file.exists():
        raise ConflictError(f"{file}: exists already; edit it, or remove it to have it written anew")
    missing = [f"{{{name}}}" for name, value in values.items() if value is None]
    missing += [] if has_impressions else ["{impressions}"]
    steps = [line for line in STEPS if not any(name in line for name in missing)]
    lines = [TEMPLATE + "[pipeline]"]
    lines += [f"{name} = {_quote(value)}" for name, value in values.items() if value is not None]
    lines += ["steps = [", *(f"    {_quote(line)}," for line in steps), "]"]
    lines += ["# Run after the steps, all of them. If one fails, the exit code is 3."]
    checks = () if missing else CHECKS
    lines += ["checks = [", *(f"    {_quote(line)}," for line in checks), "]"]
    write_text(file, "\n".join(lines) + "\n")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a basic string of TOML has the escapes of JSON


def _parse_step(file: Path, line: str, values: Mapping[str, Any], names: Counter[str]) -> PipelineStep:
    """Return the step of a line. The line is split before values are put in, so that these may have blanks."""
    try:
        words = shlex.split(line)
        command = tuple(
            word.format_map({name: value for name, value in values.items() if value is not None}) for word in words
        )
    except KeyError as error:
        name = error.args[0]
        wanted = f"give --{name}" if name in GIVEN else f'add {name} = "..." to the section `pipeline`'
        raise UsageError(f"{file}: the step `{line}` needs {name}: {wanted}, or remove the step") from error
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise UsageError(f"{file}: the step `{line}` is not a command line ({error})") from error
    if len(command) < 2 or command[0] not in PROGRAMS or command[1] == "day":
        raise UsageError(f"{file}: the step `{line}` is no command of {', '.join(PROGRAMS)}")
    names[command[1]] += 1
    return PipelineStep(command[1] + (f" {names[command[1]]}" if names[command[1]] > 1 else ""), command)
