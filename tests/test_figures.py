"""The figures in README.md and docs/ are those that the benchmarks recorded in tests/benchmarks.

How to write a figure that this test checks:

* A table row that names a benchmark command, such as `python -m tests.benchmarks.online redis`, may state only numbers
  of one record of that command. Options may be left out.
* A sentence that names a record file (one of FILES, such as RESULTS.md) may state only decimal, signed or percent
  figures of that file. A table after a paragraph that names a record file may state, in each row, only numbers of one
  record of that file.
* `<!-- figures: python -m tests.benchmarks.online redis -->` or `<!-- figures: SHOPS.md -->` on the line before a
  paragraph or a table applies the same rules to it. A paragraph may then combine several records.

Numbers may be rounded, and 1,000 may be written as k, 1,000,000 as M. Seconds may be stated in milliseconds, megabytes
in gigabytes, and a ratio as its inverse. Numbers in code, in links and in parentheses that begin with "goal" are not
checked.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "benchmarks"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = (
    "RESULTS.md",
    "INCREMENTS.md",
    "GROWTH.md",
    "DAY.md",
    "SHOPS.md",
    "REAL.md",
    "PRECISION.md",
    "SCREENING.md",
    "SELECTION.md",
    "PHOTOGRAPHS.md",
    "CAPTIONS.md",
    "TUNING.md",
    "STUDIO.md",
    "TEXT_TO_IMAGE.md",
)
FILE_OF_COMMAND = {
    "python -m tests.benchmarks.increments": "INCREMENTS.md",
    "python -m tests.benchmarks.growth": "GROWTH.md",
    "python -m tests.benchmarks.day": "DAY.md",
    "python -m tests.benchmarks.shops": "SHOPS.md",
    "python -m tests.benchmarks.real": "REAL.md",
    "python -m tests.benchmarks.photographs": "PHOTOGRAPHS.md",
    "python -m tests.benchmarks.screening": "SCREENING.md",
    "python -m tests.benchmarks.precision": "PRECISION.md",
    "python -m tests.benchmarks.selection": "SELECTION.md",
    "python -m tests.benchmarks.captions": "CAPTIONS.md",
    "python -m tests.benchmarks.tuning": "TUNING.md",
    "python -m tests.benchmarks.studio": "STUDIO.md",
    "python -m tests.benchmarks.text_to_image": "TEXT_TO_IMAGE.md",
    "consume tags-report": "SHOPS.md",
}
NUMBER = re.compile(
    r"(?<![\w@.,/-])[+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?=([kM]\b|[^\w]|x\b|$|-?[a-zA-Z]))([kM]\b)?( ?MB\b)?"
)
MARK = re.compile(r"<!-- figures: (.+?) -->")
COMMAND = re.compile(r"`([^`]+)` *\|$")
"""The last cell of a table row, if it is code."""


@dataclass(frozen=True)
class Stated:
    """A number as a page writes it."""

    text: str
    value: float
    tolerance: float
    """Half a unit of the last digit that is not a rounded zero."""

    def is_in(self, record: Iterable[float]) -> bool:
        """Whether a record has the number; a number without a sign equals a negative one too."""
        signed = self.text[0] in "+-"
        return any(
            abs(self.value - (value if signed else abs(value))) <= self.tolerance * (1 + 1e-6) for value in record
        )


def find_numbers(text: str) -> Iterator[Stated]:
    """The numbers in a text without code, links, comments and goals."""
    text = re.sub(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)|\(goal[^)]*\)|\*", " ", text, flags=re.S)
    for match in NUMBER.finditer(text):
        digits = match[0].removesuffix(" MB").removesuffix("MB").rstrip("kM ").replace(",", "").rstrip(".")
        factor = {"k": 1e3, "M": 1e6}.get(match[2] or "", 1.0)
        decimals = len(digits.partition(".")[2])
        zeros = len(digits) - len(digits.rstrip("0")) if digits.endswith("000") and not decimals else 0
        tolerance = 0.5 * 10.0 ** (zeros - decimals) * factor
        yield Stated(match[0].strip(), float(digits) * factor, tolerance)


def is_figure(number: Stated) -> bool:
    """Whether a number in prose is a figure: it has decimals or a sign."""
    return "." in number.text or number.text[0] in "+-"


def read_rows(file: str) -> list[str]:
    """The table rows of a record file, without headings and rules."""
    lines = (FOLDER / file).read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    headings = {i for i, line in enumerate(rows) if line.startswith("| ---")}
    return [line for i, line in enumerate(rows) if i not in headings and i + 1 not in headings]


def read_records(file: str) -> list[set[float]]:
    """The numbers of each record of a file."""
    if file == "RESULTS.md":
        return [numbers for _, numbers in read_results()]
    return [{number.value for number in find_numbers(row)} for row in read_rows(file)]


def read_results() -> list[tuple[str, set[float]]]:
    """Command and numbers of each record in results.json."""
    records = []
    for figure in json.loads((FOLDER / "results.json").read_text())["figures"]:
        seconds = [figure["seconds"], figure["against_seconds"]]
        ratios = [figure["ratio"], *figure["ratio_range"]]
        numbers = {*seconds, *(1000 * each for each in seconds), *ratios, *(1 / each for each in ratios if each)}
        for text in (figure["name"], figure["against"], figure["note"]):
            for number in find_numbers(text.replace("`", "")):
                numbers |= {number.value, number.value / 1000} if "MB" in number.text else {number.value}
        records.append((figure["command"], numbers))
    return records


def find_records(source: str) -> list[set[float]]:
    """The records of a command or of a record file; none if it recorded nothing."""
    if source in FILES:
        return read_records(source)
    for command, file in FILE_OF_COMMAND.items():
        if source.startswith(command):
            return read_records(file)
    wanted = source.partition(" --")[0]
    return [numbers for command, numbers in read_results() if command.partition(" --")[0] == wanted]


def is_in_one_record(numbers: Sequence[Stated], records: Sequence[set[float]]) -> bool:
    """Whether one record has all numbers."""
    return any(all(number.is_in(record) for number in numbers) for record in records)


def split_blocks(text: str) -> Iterator[tuple[str, str | None]]:
    """Paragraphs and tables of a page, each with the source named by the mark before it."""
    text = re.sub(r"^```.*?^```", "\n", text, flags=re.S | re.M)
    source = None
    for block in re.split(r"\n\s*\n", text):
        if mark := MARK.search(block):
            source = mark[1]
            block = MARK.sub("", block)
        if block.strip():
            yield block.strip("\n"), source
            source = None


def check_page(text: str) -> list[str]:
    """The statements of a page that no record has."""
    wrong = []
    named: list[str] = []
    for block, source in split_blocks(text):
        if block.lstrip().startswith("|"):
            wrong += check_table(block, [source] if source else named)
        else:
            wrong += check_paragraph(block, source)
        named = [file for file in FILES if file in block] if not block.lstrip().startswith("|") else []
    return wrong


def check_table(table: str, sources: Sequence[str]) -> list[str]:
    """The rows that no single record has, by the row's own command or by the table's sources."""
    wrong = []
    for row in table.splitlines()[2:]:
        command = COMMAND.search(row)
        row_sources = [command[1]] if command else sources
        numbers = list(find_numbers(row))
        records = [record for source in row_sources for record in find_records(source)]
        records_nothing = command and not command[1].startswith("python -m tests.benchmarks.") and not records
        if row_sources and numbers and not records_nothing and not is_in_one_record(numbers, records):
            wrong.append(row.strip())
    return wrong


def check_paragraph(paragraph: str, source: str | None) -> list[str]:
    """The sentences with a figure that is in no record of their source."""
    wrong = []
    for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z*`|])", paragraph):
        sources = [source] if source else [file for file in FILES if file in sentence]
        numbers = set().union(*(record for each in sources for record in find_records(each)))
        missing = [number.text for number in find_numbers(sentence) if is_figure(number) and not number.is_in(numbers)]
        if sources and missing:
            wrong.append(f"{', '.join(missing)} in: {' '.join(sentence.split())}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_figures_of_a_page_are_recorded(page: Path) -> None:
    assert check_page(page.read_text()) == []


def test_the_figures_of_the_demo_are_those_recorded_for_shop_0() -> None:
    columns = {
        "all features": 2,
        "all features, new products": 3,
        "all features over placebo": 4,
        "placebo": 5,
        "attainable": 6,
        "oracle": 7,
    }
    recorded = next(row for row in read_rows("SHOPS.md") if row.startswith("| 0 |")).split("|")
    readme = {
        row.split("|")[1].strip(): row.split("|") for row in (ROOT / "README.md").read_text().splitlines() if "|" in row
    }
    for name, column in columns.items():
        cells = [cell.strip() for cell in readme[name]]
        assert recorded[column + 1].strip() == f"{cells[3]} {cells[4]}", name


RESULT = (
    "| fetch 500 products, 128-d, Redis | 0.73 ms | {ratio} of a raw MGET | `python -m tests.benchmarks.online redis` |"
)


@pytest.mark.parametrize(
    ("text", "is_recorded"),
    [
        ("| a | b | c | d |\n| --- | --- | --- | --- |\n" + RESULT.format(ratio="1.10x [1.03, 1.17]"), True),
        ("| a | b | c | d |\n| --- | --- | --- | --- |\n" + RESULT.format(ratio="1.12x [1.03, 1.17]"), False),
        ("| a | b | c | d |\n| --- | --- | --- | --- |\n" + RESULT.format(ratio="1.10x (goal: 9.9)"), True),
        ("On shop 1 the lift is +0.0209 [+0.0165, +0.0253] (SHOPS.md).", True),
        ("On shop 1 the lift is +0.0198 [+0.0173, +0.0224] (SHOPS.md).", False),
        ("On shop 1 the lift is +0.0198. The file is SHOPS.md.", True),
        ("<!-- figures: SHOPS.md -->\nOn shop 1 the lift is +0.0198.", False),
        ("INCREMENTS.md has:\n\n| products | a | b |\n| --- | --- | --- |\n| 100,000 | 0.2 s | 0.6 s |", True),
        ("INCREMENTS.md has:\n\n| products | a | b |\n| --- | --- | --- |\n| 100,000 | 2.3 s | 0.6 s |", False),
        (
            "<!-- figures: python -m tests.benchmarks.asof vectors -->\nIt takes 1.01 s, 8.37x faster, and 0.927 GB.",
            True,
        ),
        ("<!-- figures: python -m tests.benchmarks.asof vectors -->\nIt takes 1.09 s.", False),
    ],
)
def test_the_check_finds_figures_that_differ(text: str, is_recorded: bool) -> None:
    assert (check_page(text) == []) == is_recorded
