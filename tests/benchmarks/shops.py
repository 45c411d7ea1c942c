"""The demo on shops of other seeds; all features should lift on each of them.

    python -m tests.benchmarks.shops 1 2 3 4 [--keep DIR] [--record]

`--keep` names a folder in which the shops stay and are used again. The steps are those of the Makefile. The result goes
to SHOPS.md, one row per shop; rows of other seeds stay.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks import harness
from tests.benchmarks.real import BenchmarkDeployment

TABLE = Path(__file__).parent / "SHOPS.md"
SHOP_ENDS = "2026-03-02T00:00:00"
STEPS = (
    "produce catalogue --products shop/products.parquet",
    "produce encoder --data shop --output encoder --align shop/impressions.parquet --test-days 17",
    "produce embeddings --encoder encoder",
    "produce tags --labels shop/labels.parquet",
    "produce codes",
    "produce interests --impressions shop/impressions.parquet",
    "produce neighbours --impressions shop/impressions.parquet",
    "feast apply",
    f"feast materialize-incremental {SHOP_ENDS}",
    "consume tags-report --json tags.json",
)
INTERVALS = "users and products drawn"
COLUMNS = ("all features", "all features over placebo", "placebo", "attainable", "oracle")


def main(
    shops: Annotated[list[int], typer.Argument(help="Seeds of the shops.")],
    seeds: Annotated[int, typer.Option(help="Training seeds of each ranker.")] = 3,
    permutations: Annotated[int, typer.Option(help="Permutations of the placebo.")] = 5,
    ladder_rows: Annotated[int, typer.Option(help="Rows that the rankers of single groups are trained on.")] = 60_000,
    keep: Annotated[Path | None, typer.Option(help="Folder in which shops stay and are used again.")] = None,
    record: harness.RecordOption = False,
) -> None:
    """Run the demo on each shop."""
    for seed in shops:
        with tempfile.TemporaryDirectory() as scratch:
            deployment = deploy_shop(seed, keep or Path(scratch))
            deployment.run(
                "consume lift --impressions shop/impressions.parquet --truth shop/truth --test-days 10 "
                f"--json lift.json --seeds {seeds} --permutations {permutations} --ablation-rows {ladder_rows}"
            )
            lift, tags = (json.loads((deployment.folder / f"{name}.json").read_text()) for name in ("lift", "tags"))
            line = format_row(seed, lift, tags, f"{seeds}, {permutations}")
            print(line, flush=True)
            if record:
                _record(seed, line)


def deploy_shop(seed: int, folder: Path) -> BenchmarkDeployment:
    """Generate a shop in a folder of its own and run all steps up to the lift, unless that is done already."""
    deployment = BenchmarkDeployment.create(f"shop {seed}", folder / f"shop{seed}")
    deployment.run_once([f"produce shop --output shop --seed {seed}", *STEPS])
    return deployment


def format_row(seed: int, lift: dict, tags: dict, trained: str) -> str:  # type: ignore[type-arg]
    """Return one row of SHOPS.md."""
    whole = {
        one["name"]: one
        for one in lift["comparisons"]
        if (one["slice"], one["metric"], one["days"]) == ("all", "auc", "test")
    }
    new = next(
        one
        for one in lift["comparisons"]
        if (one["name"], one["slice"], one["metric"]) == (COLUMNS[0], "new products", "auc")
    )
    cells = [f"{whole[name]['lift']:+.4f} {_span(whole[name]['ci95_two_way'])}" for name in COLUMNS]
    cells.insert(1, f"{new['lift']:+.4f} {_span(new['ci95_two_way'])}")
    share = whole[COLUMNS[0]]["lift"] / whole["attainable"]["lift"]
    age = next(tag for tag in tags["tags"] if tag["tag"] == "child_age")
    low, high = age["gain"]["ci95"]
    gained = f"{100 * age['gain']['value']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] over {age['rival']}"
    base = f"{whole[COLUMNS[0]]['base']:.4f}"
    return " | ".join([f"| {seed}", base, *cells, f"{share:.0%}", gained, f"{trained} |"])


def _span(interval: list[float]) -> str:
    low, high = interval
    return f"[{low:+.4f}, {high:+.4f}]"


def _record(seed: int, line: str) -> None:
    text = TABLE.read_text() if TABLE.exists() else ""
    kept = text.splitlines() if INTERVALS in text else []  # no table mixes intervals of two kinds
    rows = {int(one.split("|")[1]): one for one in kept if one.startswith("| ") and one.split("|")[1].strip().isdigit()}
    rows[seed] = line
    run = harness.describe_machine()
    head = [
        "# The demo on shops of several seeds",
        "",
        "Written by `python -m tests.benchmarks.shops SEED ... --record`: AUC differences on the last 10 days with "
        f"their 95% intervals, {INTERVALS}.",
        f"Last written at {run['commit']}, {run['date']}, {run['machine']}.",
        "",
        "| shop | baseline AUC | all features | on new products | over placebo | placebo | attainable | oracle | "
        "share of the attainable | child age, points of accuracy over the better of bag of words and text tower | "
        "training seeds, permutations |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    TABLE.write_text("\n".join([*head, *(rows[each] for each in sorted(rows))]) + "\n")


if __name__ == "__main__":
    typer.run(main)
