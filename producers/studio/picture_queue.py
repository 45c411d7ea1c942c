"""Generates pictures from sentences, one job after the other, in a thread of its own."""

import io
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from feature_repo.arrow.text import normalize_id
from feature_repo.errors import InvalidInputError, NotFoundError, VitrineError
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.serving_limits import PictureLimits
from producers.studio.metrics import StudioMetrics
from producers.studio.picture_model import PictureModel
from producers.studio.picture_request import PictureRequest
from producers.studio.picture_store import ENDED, PictureJob, PictureStore

_log = logging.getLogger(__name__)
CUT = "the model reads the beginning of the sentence only, because it is longer than the model's text encoder takes"
STOPPED = "the studio was stopped while it was generated; start it again with the same seed"


@dataclass(frozen=True)
class JobProgress:
    """A job, and where it is."""

    job: PictureJob
    place: int
    """Place in the queue, from 1; 0 if it does not wait."""
    step: int
    """Finished steps of all pictures of the job."""
    total_steps: int
    """Steps of all pictures of the job."""


class PictureQueue:
    """Jobs that wait, the one in work, and those that have ended. Safe to share between threads.

    Jobs that waited when a former process ended go on waiting. The job that was in work becomes `interrupted` and keeps
    its finished pictures. A state that cannot be written, because the disk is full, is kept in memory and logged.

    Args:
        store: keeps the jobs.
        model: generates pictures; only the thread of the queue uses it.
        limits: how many jobs may wait and are kept, and for how long.
        clock: returns the current time with its UTC offset.
        metrics: counts jobs and pictures.
    """

    def __init__(
        self,
        store: PictureStore,
        model: PictureModel,
        *,
        limits: PictureLimits,
        clock: Callable[[], datetime],
        metrics: StudioMetrics,
    ) -> None:
        self.limits = limits
        self.model = model
        self.store = store
        self._clock = clock
        self._metrics = metrics
        self._changed = threading.Condition()
        self._jobs: dict[str, PictureJob] = {}
        self._waiting: list[str] = []
        self._running: str | None = None
        self._step = 0
        self._is_cancelled = False
        self._is_closed = False
        self._load()
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread takes jobs."""
        return self._thread.is_alive()

    def submit(self, request: PictureRequest) -> JobProgress:
        """Queue a job.

        Raises:
            InvalidInputError: height or width is not one that the model can generate, or is the model's own and exceeds
                the limits; or the product id is blank.
            OSError: the job cannot be written.
            RequestError: RESOURCE_EXHAUSTED with status 503 if the queue is full, UNAVAILABLE during shutdown.
        """
        with self._changed:
            if self._is_closed:
                raise RequestError(ErrorCode.UNAVAILABLE, "the server is shutting down")
            self._drop_deleted()
            self._prune()
            if len(self._waiting) >= self.limits.queue_size:
                message = f"{len(self._waiting):,} jobs wait, and no more may; try again when one has ended"
                raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, message, status=503)
            height, width = request.height or self.model.height, request.width or self.model.width
            for name, side in (("height", height), ("width", width)):
                if side > self.limits.max_side:
                    raise InvalidInputError(f"{name}: {side} pixels; at most {self.limits.max_side} are allowed")
                if side % self.model.side_unit:
                    raise InvalidInputError(f"{name}: {side} pixels; expected a multiple of {self.model.side_unit}")
            product_id = None if request.product_id is None else normalize_id(request.product_id)
            if product_id == "":
                raise InvalidInputError("product_id: it has no visible character; leave it out, or name a product")
            job = PictureJob(
                id=secrets.token_hex(8),
                sentence=request.sentence.strip(),
                product_id=product_id,
                seed=request.seed,
                count=request.count,
                steps=request.steps,
                guidance=request.guidance,
                height=height,
                width=width,
                state="queued",
                created_at=self._clock(),
                model=self.model.name,
            )
            self.store.create(job)
            self._jobs[job.id] = job
            self._waiting.append(job.id)
            self._count_waiting()
            self._changed.notify_all()
            return self._describe(job)

    def list_jobs(self) -> list[JobProgress]:
        """Return all jobs, the newest first."""
        with self._changed:
            self._drop_deleted()
            return [self._describe(job) for job in reversed(self._jobs.values())]

    def find(self, job_id: str) -> JobProgress:
        """Return a job.

        Raises:
            NotFoundError: there is no such job, or it was deleted.
        """
        with self._changed:
            self._drop_deleted()
            if job_id not in self._jobs:
                raise NotFoundError(f"there is no job {job_id[:16]!r}; it may have been deleted")
            return self._describe(self._jobs[job_id])

    def cancel(self, job_id: str) -> JobProgress:
        """Cancel a job; one that is in work ends after the step in progress, and keeps its finished pictures.

        One that has ended stays as it is.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._changed:
            self.find(job_id)
            if job_id == self._running:
                self._is_cancelled = True
            elif job_id in self._waiting:
                self._waiting.remove(job_id)
                self._count_waiting()
                self._end(self._jobs[job_id], "cancelled")
            return self._describe(self._jobs[job_id])

    def delete(self, job_id: str) -> None:
        """Cancel a job, and delete it with its pictures.

        Raises:
            NotFoundError: there is no such job.
            OSError: its files cannot be deleted; it stays in the list.
        """
        with self._changed:
            self.cancel(job_id)
            self.store.delete(job_id)
            del self._jobs[job_id]

    def close(self) -> None:
        """Stop the job in work after its step, which is then interrupted, and end the thread. Those that wait stay."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _load(self) -> None:
        for job in self.store.load():
            if job.state == "running":
                job = replace(job, state="interrupted", ended_at=self._clock(), message=STOPPED)
                self._save(job)
            elif job.state == "queued":
                self._waiting.append(job.id)
            self._jobs[job.id] = job
        self._prune()
        self._count_waiting()

    def _run(self) -> None:
        while (job := self._take()) is not None:
            try:
                state, message = self._generate(job)
            except VitrineError as error:
                state, message = "failed", str(error)
            except OSError as error:
                _log.error("the pictures of job %s cannot be written: %s", job.id, error)
                state, message = "failed", f"its files cannot be written: {error.strerror}"
            except Exception:  # the thread must go on with the next job
                _log.exception("the pictures of job %s cannot be generated", job.id)
                state, message = "failed", "the model failed; the log of the studio has the reason"
            with self._changed:
                self._running = None
                if job.id in self._jobs:
                    self._end(self._jobs[job.id], state, message)
                self._prune()

    def _take(self) -> PictureJob | None:
        """Return the next job, when there is one; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return None
                self._drop_deleted()
                if not self._waiting:
                    continue
                job = replace(self._jobs[self._waiting.pop(0)], state="running", model=self.model.name)
                self._jobs[job.id] = job
                self._running, self._step, self._is_cancelled = job.id, 0, False
                self._count_waiting()
                self._save(job)
                return job

    def _generate(self, job: PictureJob) -> tuple[str, str]:
        """Generate and store the pictures of a job one by one; return its last state, and a message."""
        message = CUT if self.model.is_cut(job.sentence) else ""
        for number in range(job.count):
            started = time.perf_counter()
            picture = self.model.generate(
                job.sentence,
                seed=(job.seed + number) % 2**32,
                steps=job.steps,
                guidance=job.guidance,
                height=job.height,
                width=job.width,
                on_step=partial(self._set_step, number * job.steps),
                should_stop=lambda: self._should_stop(job.id),
            )
            if picture is None:
                return self._explain_stop()
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            self._metrics.pictures.inc()
            self._metrics.picture_seconds.observe(time.perf_counter() - started)
            self.store.write_picture(job.id, number, buffer.getvalue())
            with self._changed:
                if job.id in self._jobs:
                    self._jobs[job.id] = replace(self._jobs[job.id], pictures=number + 1)
                    self._save(self._jobs[job.id])
            if number + 1 < job.count and self._should_stop(job.id):
                return self._explain_stop()
        return "done", message

    def _explain_stop(self) -> tuple[str, str]:
        return ("cancelled", "") if self._is_cancelled or not self._is_closed else ("interrupted", STOPPED)

    def _set_step(self, before: int, step: int) -> None:
        self._step = before + step

    def _should_stop(self, job_id: str) -> bool:
        """Return whether the job in work was cancelled or deleted, also by `produce forget`, or the studio ends."""
        return self._is_cancelled or self._is_closed or not self.store.exists(job_id)

    def _end(self, job: PictureJob, state: str, message: str = "") -> None:
        self._jobs[job.id] = ended = replace(job, state=state, message=message, ended_at=self._clock())
        self._metrics.picture_jobs.labels(state).inc()
        self._save(ended)

    def _save(self, job: PictureJob) -> None:
        try:
            self.store.save(job)
        except OSError as error:  # the thread must go on
            _log.error("the state %s of job %s cannot be written: %s", job.state, job.id, error)

    def _prune(self) -> None:
        """Delete the ended jobs that are too many or too old."""
        ended = [job for job in self._jobs.values() if job.state in ENDED]
        oldest = self._clock() - timedelta(days=self.limits.max_age_days)
        surplus = len(ended) - self.limits.max_jobs
        for number, job in enumerate(ended):
            if number < surplus or (job.ended_at or job.created_at) < oldest:
                try:
                    self.store.delete(job.id)
                except OSError as error:
                    _log.error("the ended job %s cannot be deleted: %s", job.id, error)
                    continue
                del self._jobs[job.id]

    def _drop_deleted(self) -> None:
        """Drop the jobs that another process has deleted."""
        for job_id in [one for one in self._jobs if not self.store.exists(one)]:
            del self._jobs[job_id]
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                self._count_waiting()

    def _describe(self, job: PictureJob) -> JobProgress:
        place = self._waiting.index(job.id) + 1 if job.id in self._waiting else 0
        step = self._step if job.id == self._running else job.pictures * job.steps
        return JobProgress(job, place, step, job.count * job.steps)

    def _count_waiting(self) -> None:
        self._metrics.waiting_jobs.set(len(self._waiting))
