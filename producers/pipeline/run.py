"""Runs the steps of a day. The run log has a run `day`, a run `day/NAME` for each step, and each step's own run.

After a day that did not end well, a call with the same files and the same pipeline continues with the first step that
did not end well. Otherwise all steps run: each writes only what is new, so a second run of a day costs little.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from feature_repo.errors import UnavailableError
from feature_repo.offline import production
from feature_repo.offline.production import State
from producers.pipeline.plan import DayPipeline, PipelineStep
from producers.pipeline.process import run_process
from producers.pipeline.summary import DONE_BEFORE, DaySummary, StepOutcome
from producers.upgrade.both_versions import COMPLETE

DAY = "day"
UPGRADE = "upgrade"
"""Name of the step that follows those of the pipeline during an upgrade."""


class StepFailedError(UnavailableError):
    """A step of the day ended with another exit code than 0. Running the day again starts at this step."""


def run_day(
    settings: Settings,
    pipeline: DayPipeline,
    files: Mapping[str, Path],
    *,
    now: datetime,
    restart: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> DaySummary:
    """Run the steps in order until one fails, then, if none did, the checks.

    Args:
        settings: the deployment.
        pipeline: the steps and checks.
        files: name -> input file or folder; another path, size or modification time makes another day.
        now: the time at which the day begins, with a time zone.
        restart: run all steps, also those that an unfinished day has completed.
        on_line: called with each line that a step prints.

    Raises:
        ConflictError: another process runs the day of this deployment.
        UnavailableError: the run log does not answer.
    """
    start = time.monotonic()
    inputs = _identify_inputs(pipeline, files)
    finished = set() if restart else find_finished(settings, inputs)
    steps: list[StepOutcome] = []
    checks: list[StepOutcome] = []
    follow_up, note = find_upgrade_step(settings)
    all_steps = (*pipeline.steps, *follow_up)
    names = [step.name for step in all_steps]
    try:
        with run_log.record_run(settings, DAY, now=now) as run:
            for name, version in inputs.items():
                run.add_input(name, version)
            for step in all_steps:
                if step.name in finished:
                    steps.append(StepOutcome(step.name, DONE_BEFORE, 0.0))
                    continue
                finished = set()  # what follows the first step to run is run too
                steps.append(_run_step(settings, pipeline, step, on_line))
                if steps[-1].error is not None:
                    raise StepFailedError(f"{step.name}: {steps[-1].error}")
            checks = [_run_step(settings, pipeline, check, on_line) for check in pipeline.checks]
    except StepFailedError:
        pass  # it is in the run log, and in the summary
    return DaySummary(
        steps=tuple(steps),
        checks=tuple(checks),
        seconds=time.monotonic() - start,
        remaining=tuple(names[len(steps) :]),
        inputs_written=max(map(_read_time, files.values()), default=None),
        ended=datetime.now(UTC),
        note=note,
    )


def find_upgrade_step(settings: Settings) -> tuple[tuple[PipelineStep, ...], str | None]:
    """Return the step that keeps the other version of an encoder upgrade up to date, if there is one, and a remark.

    The steps of a pipeline write rows of the version in production, and `produce embeddings` vectors of both.
    """
    upgrade = production.read_current(settings.offline)
    if upgrade is None or not upgrade.is_running:
        return (), None
    if upgrade.state in COMPLETE:
        return (PipelineStep(UPGRADE, ("produce", "upgrade", "catch-up")),), None
    if upgrade.state in (State.STAGED, State.BACKFILLING):
        return (), (
            f"the upgrade to {upgrade.candidate_version} is {upgrade.state}: `produce upgrade advance` writes what it "
            "lacks of today"
        )
    return (), f"{upgrade.candidate_version} is {upgrade.state} and gets no rows"


def find_finished(settings: Settings, inputs: dict[str, int | None]) -> set[str]:
    """Return the names of the steps that an unfinished day with these inputs has completed.

    These are the steps whose last run ended well, in the latest days of the run log that have these inputs and did not
    end well. Empty if the latest day has other inputs or ended well.

    Args:
        settings: the deployment.
        inputs: what identifies the day, as its run has it.
    """
    endings: dict[str, str] = {}  # of the last run of each step
    since: dict[str, str] = {}  # those after the day that is looked for next
    for run in reversed(run_log.read_runs(settings)):
        if run.step == DAY:
            if run.inputs != inputs or run.ending == run_log.DONE:
                break
            endings, since = since | endings, {}
        elif run.step.startswith(f"{DAY}/"):
            since.setdefault(run.step.removeprefix(f"{DAY}/"), run.ending)
    return {step for step, ending in endings.items() if ending == run_log.DONE}


def _run_step(
    settings: Settings, pipeline: DayPipeline, step: PipelineStep, on_line: Callable[[str], None]
) -> StepOutcome:
    """Run a step or check, and return its outcome."""
    start, now = time.monotonic(), datetime.now(UTC)
    on_line(f"{step.name}: {' '.join(step.command)}")
    error, run_id = None, 0
    try:
        with run_log.record_run(settings, f"{DAY}/{step.name}", now=now) as run:
            run_id = run.id
            code, message = run_process(step.command, pipeline.folder, settings.file, on_line)
            if code:
                ended = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise StepFailedError(f"{ended}: {message}" if message else ended)
    except StepFailedError as raised:
        error = str(raised)
    seconds, counts, quarantined = time.monotonic() - start, Counter[str](), Counter[str]()
    for own in run_log.read_runs(settings, step=step.command[1]) if step.command[0] == "produce" else ():
        if own.id > run_id:  # during an upgrade `produce embeddings` makes a run for each version
            counts.update(own.counts)
            quarantined.update(own.quarantined)
    ending = run_log.DONE if error is None else run_log.FAILED
    return StepOutcome(step.name, ending, seconds, dict(counts), dict(quarantined), error)


def _identify_inputs(pipeline: DayPipeline, files: Mapping[str, Path]) -> dict[str, int | None]:
    """Return 48-bit hashes of the pipeline and of each input's path, size and modification time, by name.

    Two calls are of the same day if they have the same hashes.
    """
    texts = {"pipeline": pipeline.text}
    for name, file in files.items():
        parts = sorted(part for part in file.rglob("*") if part.is_file()) if file.is_dir() else [file]
        stats = [(str(part.resolve()), part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
        texts[name] = repr(stats)
    return {name: int.from_bytes(content_hash(text.encode())[:6], "big") for name, text in texts.items()}


def _read_time(file: Path) -> datetime:
    """Return when a file, or the newest file of a folder, was last written."""
    parts = [part for part in file.rglob("*") if part.is_file()] if file.is_dir() else [file]
    return datetime.fromtimestamp(max((part.stat().st_mtime for part in parts), default=0.0), UTC)
