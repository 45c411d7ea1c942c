"""Measure sides in turns and record their ratio with size, command, commit and machine.

Absolute times on a shared machine mean little: the same code measured in separate blocks differs by half. So each round
runs every side once, in one process, in a rotating order, and the ratio is taken within the round.
"""

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path(__file__).parent / "results.json"
TABLE = Path(__file__).parent / "RESULTS.md"

RoundsOption = Annotated[int, typer.Option(help="Rounds; every side runs once in each.")]
RecordOption = Annotated[bool, typer.Option(help="Write the figures to results.json and RESULTS.md.")]


@dataclass(frozen=True)
class BenchmarkFigure:
    """One line of the table of results."""

    name: str
    """What was measured, with its size."""
    seconds: float
    """Median of our side over the rounds."""
    against: str
    """Name of the other side."""
    against_seconds: float
    ratio: float
    """Median over rounds of the other side's seconds divided by ours; 2 means that ours takes half the time."""
    ratio_range: tuple[float, float]
    rounds: int
    command: str
    note: str = ""
    """Peak memory, versions of the other side, and other facts needed to read the figure."""
    unit: str = "s"
    """Unit of `seconds` and `against_seconds`; s unless the figure is not a time."""


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    *,
    every: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """Measure the seconds of each side in each round, after one unmeasured run of every side.

    A side that takes milliseconds is called several times in a turn, and the median is kept. With single calls, each
    side would start with the caches that the other side left.

    Args:
        sides: name to function.
        rounds: number of rounds.
        calls: calls of a side in each round.
        every: receives the seconds of every call of each side.

    Returns:
        Name to one time per round, in seconds.
    """
    order = list(sides)
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for round_ in range(rounds):
        turn = round_ % len(order)
        for name in order[turn:] + order[:turn]:
            taken = []
            for _ in range(calls):
                start = time.perf_counter()
                result = sides[name]()
                taken.append(time.perf_counter() - start)
                del result
            seconds[name].append(statistics.median(taken))
            if every is not None:
                every.setdefault(name, []).extend(taken)
        print(f"round {round_ + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.4g} s" for name in order), flush=True)
    return seconds


def compare_sides(
    name: str, seconds: Mapping[str, list[float]], ours: str, other: str, note: str = ""
) -> BenchmarkFigure:
    """Return the figure of two sides that `take_turns` measured."""
    ratios = [theirs / mine for mine, theirs in zip(seconds[ours], seconds[other], strict=True)]
    return BenchmarkFigure(
        name=name,
        seconds=statistics.median(seconds[ours]),
        against=other,
        against_seconds=statistics.median(seconds[other]),
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        rounds=len(ratios),
        command=format_command(),
        note=note,
    )


@dataclass(frozen=True)
class PairedComparison:
    """Measures our side and another one in turns."""

    rounds: int
    calls: int
    note: str

    def compare(self, what: str, ours: Callable[[], object], name: str, other: Callable[[], object]) -> BenchmarkFigure:
        every: dict[str, list[float]] = {}
        seconds = take_turns({"ours": ours, name: other}, self.rounds, self.calls, every=every)
        figure = compare_sides(what, seconds, "ours", name, self.note)
        slow = {side: _amount(_percentile_99(taken), "s") for side, taken in every.items()}
        tail = f"p99 of {len(every['ours']):,} calls: ours {slow['ours']}, theirs {slow[name]}"
        figure = replace(figure, note=f"{tail}; {figure.note}")
        if figure.ratio < 1:
            low, high = sorted(1 / ratio for ratio in figure.ratio_range)
            figure = replace(figure, note=f"ours takes {1 / figure.ratio:.2f}x [{low:.2f}, {high:.2f}]; {figure.note}")
        return figure


def _percentile_99(taken: list[float]) -> float:
    """The 99th percentile of the times; the largest of fewer than 100."""
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def measure_peak_megabytes(module: str, *arguments: str) -> float:
    """Return the peak memory of `python -m module arguments` in 10^6 bytes, with all imports but torch."""
    # VmHWM, because getrusage's ru_maxrss survives exec and would include the memory of this process.
    # Feast imports torch where it is installed (180 MB); it is blocked on every side.
    probe = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__'); "
        "print('PEAK', next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", probe, module, *arguments], check=True, capture_output=True, text=True)
    return int(done.stdout.rsplit("PEAK", 1)[1].split()[0]) * 1.024e-3


def call_in_process(function: Callable[..., None], *arguments: object) -> None:
    """Call a function in a process of its own, so that its memory does not count for what is measured later."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def record_figures(figures: list[BenchmarkFigure]) -> None:
    """Write figures to results.json, replacing those with the same name and other side, and rewrite RESULTS.md."""
    kept: list[dict[str, Any]] = json.loads(RESULTS.read_text())["figures"] if RESULTS.exists() else []
    new = [asdict(figure) | describe_machine() for figure in figures]
    names = {(figure["name"], figure["against"]) for figure in new}
    together = [figure for figure in kept if (figure["name"], figure["against"]) not in names] + new
    RESULTS.write_text(json.dumps({"figures": together}, indent=1) + "\n")
    TABLE.write_text(_table(together))


def replace_section(file: Path, title: str, heading: str, lines: Sequence[str]) -> None:
    """Write a section of a Markdown file, with the command and the machine; the file's other sections stay.

    Args:
        file: created with the title if it does not exist.
        title: first line of the file, without "# ".
        heading: of the section, without "## ". A section with this heading is replaced.
        lines: the text below it.
    """
    head, *sections = (file.read_text() if file.exists() else f"# {title}\n").split("\n## ")
    own = describe_machine()
    footer = f"`{format_command()}`, commit {own['commit']}, {own['date']}, {own['machine']}."
    kept = [section for section in sections if section.split("\n", 1)[0] != heading]
    text = "\n".join([heading, "", *lines, "", footer])
    file.write_text("\n\n## ".join(part.strip("\n") for part in (head, *kept, text)) + "\n")


def describe_machine() -> dict[str, str]:
    """Return machine, commit and date of this run."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "machine": f"{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}",
        "commit": head.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _table(figures: list[dict[str, Any]]) -> str:
    lines = [
        "# Figures",
        "",
        "The sides of a figure take turns within one process; a ratio is the other side's time over ours, the median",
        "of the rounds' ratios with their range in brackets. Written by the commands named, never by hand.",
        "",
        "| what | ours | against | theirs | ratio | rounds | note | command | commit, date, machine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in figures:
        low, high = each["ratio_range"]
        unit = each.get("unit", "s")
        lines.append(
            f"| {each['name']} | {_amount(each['seconds'], unit)} "
            f"| {each['against']} | {_amount(each['against_seconds'], unit)} "
            f"| **{each['ratio']:.3g}x** [{low:.3g}, {high:.3g}] | {each['rounds']} | {each['note']} "
            f"| `{each['command']}` | {each['commit']}, {each['date']}, {each['machine']} |"
        )
    return "\n".join(lines) + "\n"


def _amount(value: float, unit: str) -> str:
    """Three digits and the unit; times below 0.1 s in milliseconds."""
    if unit == "s":
        return f"{value:.3g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"
    return f"{value:,.0f} {unit}"


def format_command() -> str:
    """Return the command that started this program."""
    return "python -m " + " ".join([_module(), *sys.argv[1:]])


def _processor() -> str:
    """The processor's name, or the machine type where the system does not give one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def report_figures(figures: list[BenchmarkFigure], write: bool) -> None:
    """Print the figures, and record them if `write` is true."""
    for figure in figures:
        low, high = figure.ratio_range
        ours, theirs = _amount(figure.seconds, figure.unit), _amount(figure.against_seconds, figure.unit)
        print(
            f"{figure.name}: {ours}; {figure.against}: {theirs}, {figure.ratio:.2f}x [{low:.2f}, {high:.2f}]; "
            f"{figure.note}"
        )
    if write:
        record_figures(figures)


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem


def replace_rows(file: Path, head: list[str], rows: list[str], key_cells: int = 1) -> None:
    """Write a page of one table: rows whose first cells are those of a new one are replaced, the others are kept.

    Args:
        file: the page in Markdown, which need not exist.
        head: the lines above the rows, which are written anew.
        rows: the new rows.
        key_cells: number of cells that name a row.
    """
    names = {_read_key(row, key_cells) for row in rows}
    kept = file.read_text().splitlines()[len(head) :] if file.exists() else []
    file.write_text("\n".join([*head, *(row for row in kept if _read_key(row, key_cells) not in names), *rows]) + "\n")


def _read_key(row: str, cells: int) -> tuple[str, ...]:
    return tuple(row.split("|")[1 : 1 + cells])
