"""Searches that are saved under a name, with the products that they last returned.

One JSON file for each search, `searches/NAME.json` in the folder of the Delta tables.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.errors import CorruptDataError, NotFoundError, UsageError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json

FOLDER = "searches"


@dataclass(frozen=True)
class SavedSearch:
    """A search and what it returned."""

    name: str
    sentence: str
    options: Mapping[str, Any]
    """What `consume search` was called with beside the sentence, as JSON values."""
    product_ids: tuple[str, ...]
    """The products of the last run, best first."""
    run_at: str
    """Time of the last run, ISO 8601 in UTC."""
    encoder_version: str | None = None
    """The encoder of the last run; None if an earlier release saved it."""


def write_search(offline: Path, search: SavedSearch) -> None:
    """Save a search; an earlier one of the same name is replaced."""
    with replace_atomically(_find_file(offline, search.name)) as unfinished:
        unfinished.write_text(json.dumps(asdict(search), ensure_ascii=False, indent=1))


def read_search(offline: Path, name: str) -> SavedSearch:
    """Read a search.

    Raises:
        UsageError: the name has other characters than letters, digits, `.`, `_` and `-`.
        NotFoundError: there is no search of this name.
        CorruptDataError: its file is damaged.
    """
    file = _require_file(offline, name)
    try:
        values = parse_json(file.read_text())
        return SavedSearch(**values | {"product_ids": tuple(values["product_ids"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"{file}: not a saved search ({error}); save it again") from error


def list_names(offline: Path) -> list[str]:
    """Return the names of all saved searches, sorted."""
    return sorted(file.stem for file in (offline / FOLDER).glob("*.json"))


def remove_search(offline: Path, name: str) -> None:
    """Remove a search. Raise UsageError for a name that is not allowed, NotFoundError if there is no such search."""
    _require_file(offline, name).unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise UsageError if a name has other characters than letters, digits, `.`, `_` and `-`, or begins with `.`."""
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise UsageError(f"{name!r} is not a name of a search; expected letters, digits, `.`, `_` and `-`")


def make_run_time(now: datetime) -> str:
    """Return a time as `SavedSearch.run_at` has it."""
    return now.astimezone(UTC).isoformat(timespec="seconds")


def forget_found(offline: Path, product_ids: Sequence[str], *, dry_run: bool = False) -> int:
    """Remove products from what saved searches returned; return how many times they were there."""
    forgotten, removed = set(product_ids), 0
    for file in sorted((offline / FOLDER).glob("*.json")):
        search = read_search(offline, file.stem)
        kept = tuple(one for one in search.product_ids if one not in forgotten)
        removed += len(search.product_ids) - len(kept)
        if len(kept) < len(search.product_ids) and not dry_run:
            write_search(offline, SavedSearch(**asdict(search) | {"product_ids": kept}))
    return removed


def _find_file(offline: Path, name: str) -> Path:
    """Return the file of a search; it may not exist yet. Raise UsageError for a name that is not allowed."""
    check_name(name)
    return offline / FOLDER / f"{name}.json"


def _require_file(offline: Path, name: str) -> Path:
    """Return the file of a search. Raise NotFoundError if there is none."""
    file = _find_file(offline, name)
    if not file.is_file():
        raise NotFoundError(f"no search is saved as {name!r}; there are: {', '.join(list_names(offline)) or 'none'}")
    return file
