"""The report of `consume gate`: whether the candidate of an encoder upgrade may go into production.

`consume gate` writes it, `produce upgrade advance` reads it. It is one JSON file:

    {"candidate_version": version, "production_version": version, "created": ISO 8601,
     "gates": [{"name": name, "passed": bool, "value": number or null, "limit": number or null, "detail": text}, ...]}
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json


@dataclass(frozen=True)
class Gate:
    """One condition, and whether the candidate meets it."""

    name: str
    """What is measured: "coverage of product_tags", ..."""
    passed: bool
    """Whether the value meets the limit."""
    value: float | None
    """The measured value; None if it is undefined."""
    limit: float | None
    """The value that passes, inclusive; None if there is none."""
    detail: str
    """What the value means, in one line."""


@dataclass(frozen=True)
class GateReport:
    """The gates of one candidate."""

    candidate_version: str
    """Encoder version that was measured."""
    production_version: str
    """Encoder version that it was compared with."""
    created: datetime
    """Time of the measurement, with a time zone."""
    gates: Sequence[Gate]
    """Every gate, in the order in which they are shown."""

    @property
    def failures(self) -> list[Gate]:
        """The gates that the candidate does not pass."""
        return [gate for gate in self.gates if not gate.passed]

    def to_json(self) -> str:
        """Return the report as the text of its file."""
        return json.dumps(asdict(self) | {"created": self.created.isoformat()}, indent=2)

    def write(self, file: Path) -> None:
        """Write the report to a file, which appears complete or not at all."""
        with replace_atomically(file, suffix="unfinished") as unfinished:
            unfinished.write_text(self.to_json())


def read_report(file: Path) -> GateReport:
    """Read a report.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: the file is not a report of `consume gate`.
    """
    try:
        content = parse_json(file.read_text())
        gates = tuple(Gate(**gate) for gate in content["gates"])
        if not gates or not all(isinstance(gate.passed, bool) for gate in gates):
            raise ValueError("expected one gate or more, each with `passed` true or false")
        created = datetime.fromisoformat(content["created"])
        if created.tzinfo is None:
            raise ValueError("expected `created` with a time zone")
        return GateReport(content["candidate_version"], content["production_version"], created, gates)
    except FileNotFoundError as error:
        raise NotFoundError(f"no report of `consume gate` at {file}; run `consume gate --output {file}`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{file} is not a report of `consume gate`: {error}; run it again") from error
