"""Files that Delta wrote again without new rows: a compaction, or a deletion, moves rows to files of other names.

The materialization log records which files are online. For a file that it does not have, this module finds the files
that held its rows before. It reads the JSON files of the table's log, newest first, until each file is explained.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import unquote

from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.offline.storage import open_storage, translate_errors

MERGE_CLAUSES = ("matchedPredicates", "notMatchedPredicates", "notMatchedBySourcePredicates")
"""Parameters of a merge in the log: what it did with rows of the table and of the source."""
MAINTENANCE = ("SET TBLPROPERTIES", "VACUUM START", "VACUUM END")
"""Operations in the log that change no row."""


def find_origins(path: Location, files: Collection[str], known: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the files that held the rows of some files of a Delta table before a compaction or a deletion.

    A file that was rewritten several times is followed back to files in `known`, or to those that brought new rows. All
    files that one commit removed count as origins of each file that it added, because the log does not say more.

    Args:
        path: the table's location.
        files: names of files, relative to the table's folder.
        known: names of files that need no explanation.

    Returns:
        A name from `files` -> its origins. A name is left out if it is in `known`, if its commit brought new rows, or
        if the log no longer has that commit.

    Raises:
        UnavailableError: the bucket does not answer.
        CorruptDataError: the log cannot be read.
    """
    unexplained = set(files) - set(known)
    version = delta.latest_version(path) if unexplained else None
    rewrites: list[tuple[set[str], set[str]]] = []
    while unexplained and version is not None and version >= 0:
        actions = _read_commit(path, version)
        if actions is None:
            break
        added = _list_paths(actions, "add") & unexplained
        unexplained -= added
        if added and _keeps_rows(actions):
            removed = _list_paths(actions, "remove")
            rewrites.append((added, removed))
            unexplained |= removed - set(known)
        version -= 1
    origins: dict[str, frozenset[str]] = {}
    for added, removed in reversed(rewrites):  # the oldest first, so that an origin is not itself a rewritten file
        leaves: frozenset[str] = frozenset().union(*(origins.get(name, {name}) for name in removed))
        origins |= dict.fromkeys(added, leaves)
    return {name: origins[name] for name in files if name in origins}


def find_changed_version(path: Location) -> int | None:
    """Return the newest version of a Delta table that brought rows or deleted rows that no other corrects.

    Versions that `produce vacuum`, a compaction or new table properties made are passed over.

    Args:
        path: the table's location.

    Returns:
        The version; the newest one if the log no longer tells; None if there is no table.

    Raises:
        UnavailableError: the bucket does not answer.
        CorruptDataError: the log cannot be read.
    """
    newest = version = delta.latest_version(path)
    while version is not None and version >= 0:
        actions = _read_commit(path, version)
        if actions is None:
            return newest
        is_deletion = _find_operation(actions)[0] == "DELETE"
        if is_deletion or not (_keeps_rows(actions) or _find_operation(actions)[0] in MAINTENANCE):
            return version
        version -= 1
    return newest


def _read_commit(path: Location, version: int) -> list[dict[str, Any]] | None:
    """Return the actions of a commit; None if the log does not have it any more."""
    storage = open_storage(path)
    with translate_errors(storage.uri):
        try:
            with storage.filesystem.open_input_file(f"_delta_log/{version:020}.json") as file:
                lines = file.read().decode().splitlines()
        except FileNotFoundError:
            return None
    return [json.loads(line) for line in lines]


def _list_paths(actions: Iterable[dict[str, Any]], kind: str) -> set[str]:
    """Return the files of the actions `add` or `remove`, relative to the table's folder."""
    return {unquote(action[kind]["path"]) for action in actions if kind in action}


def _keeps_rows(actions: Iterable[dict[str, Any]]) -> bool:
    """Return whether every row of the files that a commit added was in the files that it removed."""
    operation, parameters = _find_operation(actions)
    if operation != "MERGE":
        return operation in ("OPTIMIZE", "DELETE")
    clauses = {name: json.loads(parameters.get(name, "[]")) for name in MERGE_CLAUSES}
    matched = clauses.pop("matchedPredicates")
    return not any(clauses.values()) and all(clause["actionType"] == "delete" for clause in matched)


def _find_operation(actions: Iterable[dict[str, Any]]) -> tuple[str | None, dict[str, Any]]:
    """Return the operation of a commit, None if it does not say, and its parameters."""
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    return info.get("operation"), info.get("operationParameters") or {}
