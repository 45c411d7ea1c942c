"""Jobs of generating pictures, and their pictures, as files of a folder of the deployment.

    studio/pictures/JOB/job.json   the request and its state (PictureJob), replaced as a whole
    studio/pictures/JOB/0.png      the first picture

Imports no library of pictures or models, because `produce forget` uses it.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from feature_repo.errors import NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json

FOLDER = Path("studio") / "pictures"
"""Below the deployment's folder for what stays on this machine."""
STATES = ("queued", "running", "done", "failed", "cancelled", "interrupted")
ENDED = frozenset(STATES[2:])
"""States that a job does not leave."""
JOB_FILE = "job.json"
DELETE_ATTEMPTS = 3
DELETE_WAIT_SECONDS = 0.1
_ID = re.compile(r"[0-9a-f]{16}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")
_TIMES = ("created_at", "ended_at")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureJob:
    """A request for pictures, and how far it is."""

    id: str
    """16 hex digits."""
    sentence: str
    product_id: str | None
    seed: int
    count: int
    steps: int
    guidance: float
    height: int
    width: int
    state: str
    """One of STATES."""
    created_at: datetime
    ended_at: datetime | None = None
    pictures: int = 0
    """Pictures that are finished."""
    message: str = ""
    """Why it failed or was interrupted, or that the end of the sentence was cut; else empty."""
    model: str = ""
    """The checkpoint that generated the pictures."""


class PictureStore:
    """Reads and writes the jobs of a folder. Safe to share between threads that write different jobs.

    Args:
        local: the deployment's folder for what stays on this machine.
    """

    def __init__(self, local: Path) -> None:
        self._folder = local / FOLDER

    def create(self, job: PictureJob) -> None:
        """Write a new job."""
        with replace_atomically(self._folder / job.id) as unfinished:
            unfinished.mkdir()
            (unfinished / JOB_FILE).write_text(_to_json(job))

    def save(self, job: PictureJob) -> bool:
        """Write the state of a job; False if it has been deleted meanwhile, which it then stays."""
        if not self.exists(job.id):
            return False
        with replace_atomically(self._folder / job.id / JOB_FILE) as unfinished:
            unfinished.write_text(_to_json(job))
        return True

    def exists(self, job_id: str) -> bool:
        """Return whether a job is kept."""
        return _ID.fullmatch(job_id) is not None and (self._folder / job_id).is_dir()

    def load(self) -> list[PictureJob]:
        """Return all jobs, the oldest first. One whose file cannot be read is left out and logged."""
        jobs = []
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if not _ID.fullmatch(folder.name):
                continue
            try:
                jobs.append(_from_json((folder / JOB_FILE).read_text()))
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.warning("%s cannot be read (%s); delete the folder", folder / JOB_FILE, type(error).__name__)
        return sorted(jobs, key=lambda job: (job.created_at, job.id))

    def write_picture(self, job_id: str, number: int, content: bytes) -> bool:
        """Write the encoded picture `number`, from 0, of a job; False if the job has been deleted meanwhile."""
        if not self.exists(job_id):
            return False
        with replace_atomically(self._folder / job_id / f"{number}.png") as unfinished:
            unfinished.write_bytes(content)
        return True

    def read_picture(self, job_id: str, number: int | str) -> bytes:
        """Return the encoded picture `number`, from 0, of a job; as a text if it comes from the caller of a route.

        Raises:
            NotFoundError: there is no such job, or it has no such picture.
        """
        if self.exists(job_id) and _NUMBER.fullmatch(str(number)):
            try:
                return (self._folder / job_id / f"{number}.png").read_bytes()
            except FileNotFoundError:
                pass
        raise NotFoundError(f"job {job_id[:16]!r} has no such picture, or is deleted")

    def delete(self, job_id: str) -> None:
        """Delete a job and its pictures, if there is one.

        Raises:
            OSError: files of it cannot be deleted.
        """
        for attempt in range(DELETE_ATTEMPTS):  # another process may write a picture into the folder at this moment
            if attempt:
                time.sleep(DELETE_WAIT_SECONDS)
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
            if not self.exists(job_id):
                return
        shutil.rmtree(self._folder / job_id)


def forget_pictures(local: Path, products: Collection[str], *, dry_run: bool = False) -> int:
    """Delete the jobs of products with their pictures; return their number.

    A studio that runs stops the job that it works on, and shows the others no more.

    Args:
        local: the deployment's folder for what stays on this machine.
        products: product ids.
        dry_run: only count.
    """
    if not products or not (local / FOLDER).is_dir():
        return 0
    store = PictureStore(local)
    jobs = [job for job in store.load() if job.product_id in products]
    for job in jobs if not dry_run else ():
        store.delete(job.id)
    return len(jobs)


def _to_json(job: PictureJob) -> str:
    times = {name: None if (time := getattr(job, name)) is None else time.isoformat() for name in _TIMES}
    return json.dumps(asdict(job) | times, ensure_ascii=False)


def _from_json(text: str) -> PictureJob:
    values = parse_json(text)
    times = {name: None if values[name] is None else datetime.fromisoformat(values[name]) for name in _TIMES}
    return PictureJob(**values | times)
