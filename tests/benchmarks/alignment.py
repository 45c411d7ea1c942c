"""Worth of behaviour alignment to a ranker: the same chain with and without it, on shops of several seeds.

    python -m tests.benchmarks.alignment [--seeds 3] [--products 8000] [--users 1500] [--pairs 40000]

Both encoders of a shop have the same seed, pairs and objectives except for `--align`, which uses no click of the test
days. Without a weight their towers are equal and only the space of the fused vectors differs. The figure is the
difference of a shop's two lifts; over shops, its mean with a t interval. The chain leaves out the tags, because they
are trained on labels and not on clicks.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import stats

from tests.benchmarks.real import BenchmarkDeployment

DAYS, TEST_DAYS = 60, 10
LIFT = f"--features ranking_without_labels --test-days {TEST_DAYS} --permutations 1 --replicates 20"
"""Options of `consume lift`. Intervals of a single shop and the placebo are not used, so their draws are few."""
GROUPS = ("all features", "affinity", "vectors")


def main(
    seeds: Annotated[int, typer.Option(min=2, help="Number of shops; their seeds start at 10.")] = 3,
    products: int = 8000,
    users: int = 1500,
    per_user: Annotated[int, typer.Option(help="Impressions per user.")] = 600,
    pairs: int = 40_000,
    weight: Annotated[float, typer.Option(help="Weight of the objective in training, `--align-weight`.")] = 0.0,
    fits: Annotated[int, typer.Option(min=1, help="Training seeds of each ranker.")] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the deployments; a finished chain in it is not run again.")
    ] = None,
) -> None:
    """Run both chains on each shop and print the paired differences."""
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        differences: dict[str, list[float]] = {group: [] for group in GROUPS}
        for seed in range(10, 10 + seeds):
            shop = root / f"shop{seed}"
            without, aligned = (
                measure_lifts(root / f"{name}{seed}", shop, extra, products, users, per_user, pairs, seed, fits)
                for name, extra in (
                    ("without", ""),
                    ("aligned", f" --align {shop}/impressions.parquet --test-days {TEST_DAYS} --align-weight {weight}"),
                )
            )
            for group in GROUPS:
                differences[group].append(aligned[group] - without[group])
                print(f"shop {seed}, {group}: {without[group]:+.4f} without, {aligned[group]:+.4f} aligned", flush=True)
    for group, values in differences.items():
        mean, error = float(np.mean(values)), float(stats.sem(values))
        half_width = float(stats.t.ppf(0.975, len(values) - 1)) * error
        print(
            f"{group}: {mean:+.4f} AUC [{mean - half_width:+.4f}, {mean + half_width:+.4f}], "
            f"{len(values)} shops, t interval"
        )


def measure_lifts(
    folder: Path, shop: Path, extra: str, products: int, users: int, per_user: int, pairs: int, seed: int, fits: int
) -> dict[str, float]:
    """Return the AUC lift of each of GROUPS, after running the chain unless its result exists."""
    if (folder / "lift.json").exists():
        return read_lifts(folder / "lift.json")
    folder.mkdir(parents=True, exist_ok=True)
    deployment = BenchmarkDeployment.create(folder.name, folder)
    if not (shop / "impressions.parquet").exists():
        sizes = f"--products {products} --users {users} --days {DAYS} --impressions-per-user {per_user}"
        deployment.run(f"produce shop --output {shop} {sizes} --seed {seed}")
    for line in (
        f"produce catalogue --products {shop}/products.parquet",
        f"produce encoder --data {shop} --output encoder --pairs {pairs} --seed {seed}{extra}",
        "produce embeddings --encoder encoder",
        "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",  # their quality is not measured here
        f"produce interests --impressions {shop}/impressions.parquet",
        f"produce neighbours --impressions {shop}/impressions.parquet",
        "feast apply",
        f"consume lift --impressions {shop}/impressions.parquet {LIFT} --seeds {fits} --json lift.json",
    ):
        deployment.run(line)
    return read_lifts(folder / "lift.json")


def read_lifts(file: Path) -> dict[str, float]:
    """Return the AUC lift of each of GROUPS from a file of `consume lift --json`."""
    values = json.loads(file.read_text())["comparisons"]
    wanted = [one for one in values if (one["slice"], one["metric"]) == ("all", "auc")]
    return {group: next(one["lift"] for one in wanted if one["name"] == group) for group in GROUPS}


if __name__ == "__main__":
    typer.run(main)
