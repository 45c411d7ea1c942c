"""The rows of one encoder version: written to the offline tables and the online store, and deleted again."""

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, InvalidInputError
from feature_repo.index.manifest import read_encoder_version
from feature_repo.index.rows import GROUP_FOLDER, find_folder
from feature_repo.offline import delta, retention
from feature_repo.schema import ENCODER_VERSION
from producers.behaviour.neighbour_checkpoint import remove_checkpoint
from producers.embeddings import plan, vector_cache

if TYPE_CHECKING:
    from feast import FeatureStore

RunStep = Callable[[Sequence[str]], None]
"""Runs one command of `produce` with its arguments, such as ["codes", "--levels", "3"]."""

STEP_OF_TABLE = {
    schema.TAGS_TABLE: "tags",
    schema.CODES_TABLE: "codes",
    schema.NEIGHBOURS_TABLE: "neighbours",
    schema.INTEREST_TABLE: "interests",
}
"""The command that writes each derived table."""
EMBEDDINGS = "embeddings"
ONLINE = "online"
"""Name in the run log of writing the rows of a version to the online store."""
INDEX = "index"
"""The command that writes the index of products, which follows an encoder version too."""


@dataclass(frozen=True)
class UpgradeOptions:
    """What `produce upgrade start` was told."""

    encoder: str
    """Checkpoint of the candidate: directory or hub name."""
    former_encoder: str | None
    """Checkpoint of the version in production at the start; None if its vectors cannot be computed any more."""
    steps: tuple[tuple[str, ...], ...]
    """The commands of the deployment that derive rows from vectors, with their arguments, in order. The options
    `--encoder`, `--encoder-version` and `--store` are added."""

    def to_json(self) -> dict[str, Any]:
        """Return the options as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(options: Any) -> "UpgradeOptions":
        """Parse what `to_json` returned.

        Raises:
            CorruptDataError: it is something else.
        """
        try:
            steps = tuple(tuple(step) for step in options["steps"])
            return UpgradeOptions(options["encoder"], options["former_encoder"], steps)
        except (KeyError, TypeError) as error:
            raise CorruptDataError(
                f"table `{schema.UPGRADES_TABLE}`: the options of `produce upgrade start` cannot be read "
                f"({type(error).__name__}: {error}); roll the upgrade back and start it again"
            ) from error


def parse_steps(settings: Settings, steps: Sequence[str], production_version: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands of an upgrade, split into arguments, with absolute paths. Their options are not checked.

    Args:
        settings: the deployment.
        steps: the commands as they are typed after `produce`: "tags --labels labels.parquet".
        production_version: the encoder version in production.

    Raises:
        InvalidInputError: a command does not derive rows from vectors; or a table has rows of the version in
            production, or there is an index of its products, and no command writes those of the candidate.
    """
    parsed = [_split_step(step) for step in steps]
    known = [EMBEDDINGS, *STEP_OF_TABLE.values(), INDEX]
    for step in parsed:
        if not step or step[0] not in known:
            raise InvalidInputError(f"--step {' '.join(step)!r}: expected a command among {', '.join(known)}")
    given = {step[0] for step in parsed}
    for table, command in STEP_OF_TABLE.items():
        if command not in given and count_rows(settings, table, production_version):
            raise InvalidInputError(
                f"table `{table}` has rows of {production_version}; say how to write those of the candidate: "
                f'--step "{command} ..." with the options of your `produce {command}`'
            )
    if INDEX not in given and find_folder(settings, production_version).exists():
        raise InvalidInputError(
            f"there is an index of the products of {production_version}, which search reads; say how to write that of "
            f'the candidate: --step "{INDEX}" with the options of your `produce {INDEX}`'
        )
    return tuple(parsed)


def _split_step(step: str) -> tuple[str, ...]:
    """Split a command line as a shell does, with absolute paths; raise InvalidInputError if a quote is open."""
    try:
        words = shlex.split(step)
    except ValueError as error:
        raise InvalidInputError(f"--step {step!r}: not a command line ({error}); close its quotes") from None
    return (*words[:1], *map(_to_absolute_option, words[1:]))


def _to_absolute_option(word: str) -> str:
    """Return an argument of a command with an absolute path, also as the value in `--name=value`."""
    name, separator, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return name + separator + to_absolute(value)


def to_absolute(word: str) -> str:
    """Return a path of an existing file or folder as an absolute one, and any other word as it is."""
    return str(Path(word).resolve()) if word and Path(word).exists() else word


def list_commands(options: UpgradeOptions, encoder: str, encoder_version: str) -> list[list[str]]:
    """Return the commands that write the missing rows of an encoder version offline, each with its arguments, in order.

    A command that was killed continues where it stopped; one that has nothing to do adds nothing.

    Args:
        options: has the commands.
        encoder: checkpoint of the version.
        encoder_version: the version.
    """
    own = next((step[1:] for step in options.steps if step[0] == EMBEDDINGS), ())
    version = ["--encoder-version", encoder_version]
    derived = [[*step, *version] for step in options.steps if step[0] != EMBEDDINGS]
    return [[EMBEDDINGS, *own, "--encoder", encoder, *version], *derived]


def write_online(settings: Settings, encoder_version: str, production_version: str, now: datetime) -> None:
    """Write the missing rows of an encoder version to the online store, under keys of their own.

    Args:
        settings: the deployment.
        encoder_version: the version whose rows to write.
        production_version: the version in production; an online store that has recorded none has its rows.
        now: the last event time, with a time zone.
    """
    from feature_repo.stores import encoder_views

    with run_log.record_run(settings, ONLINE, now=now) as run:
        run.set_model(encoder_version)
        run.add_counts(
            rows=encoder_views.write_version(_open_store(settings), encoder_version, production_version, now)
        )


def count_online_rows(settings: Settings, encoder_version: str) -> int:
    """Return the number of offline rows of an encoder version, in the tables that have an online view."""
    from feature_repo.stores import encoder_views

    names = {view.name for view in encoder_views.list_views(_open_store(settings))}
    return sum(count_rows(settings, table, encoder_version) for table in schema.ENCODER_TABLES if table in names)


def switch_online(settings: Settings, encoder_version: str, production_version: str) -> None:
    """Let online readers get the rows of an encoder version.

    Args:
        settings: the deployment.
        encoder_version: the version that they get from now on.
        production_version: the version in production; an online store that has recorded none has its rows.

    Raises:
        ConflictError: a view has no rows of this version online; nothing is changed.
    """
    from feature_repo.stores import encoder_views

    encoder_views.switch_version(_open_store(settings), encoder_version, production_version)


def delete_version(settings: Settings, encoder_version: str) -> dict[str, int]:
    """Delete the rows of an encoder version that is not in production, online first; return the counts by table.

    Cached vectors and the indexes of products and groups are deleted too. `produce vacuum` removes the bytes of offline
    rows from the disk.

    Args:
        settings: the deployment.
        encoder_version: the version.
    """
    from feature_repo.stores import encoder_views

    encoder_views.drop_other_versions(_open_store(settings))
    deleted = {}
    for table in schema.ENCODER_TABLES:
        path = settings.table(table)
        if delta.exists(path):
            deleted[table] = retention.forget(path, ENCODER_VERSION, [encoder_version])
    plan.forget_encoder(settings, encoder_version)
    shutil.rmtree(find_folder(settings, encoder_version), ignore_errors=True)
    remove_checkpoint(settings, encoder_version)
    for index in (settings.local / GROUP_FOLDER).glob("*"):
        if read_encoder_version(index) == encoder_version:
            shutil.rmtree(index)
    folder = settings.local / vector_cache.FOLDER
    if folder.exists():
        with vector_cache.open_cache(folder, encoder_version, 0) as cache:
            cache.clear()
    return {table: rows for table, rows in deleted.items() if rows}


def count_rows(settings: Settings, table: str, encoder_version: str) -> int:
    """Return the number of rows of an encoder version in a table; 0 if there is no table."""
    path = settings.table(table)
    if not delta.exists(path):
        return 0
    dataset = delta.open_dataset(path, [ENCODER_VERSION])
    return dataset.count_rows(filter=pc.field(ENCODER_VERSION) == encoder_version)


def _open_store(settings: Settings) -> "FeatureStore":
    from feature_repo.stores.feature_store import open_feature_store

    return open_feature_store(settings)
