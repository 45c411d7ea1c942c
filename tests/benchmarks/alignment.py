"""What behaviour alignment is worth to a ranker: the same chain with and without it, on shops of several seeds.

    python -m tests.benchmarks.alignment [--seeds 3] [--products 8000] [--users 1500] [--pairs 40000]

Both encoders of a shop share seed, pairs and objectives but for `--align`, which sees no click of the test days;
without a weight their towers are the same, and the space of the fused vectors alone differs. The figure is the
difference of the two lifts of a shop, and over shops its mean with the t interval of as few seeds as there are. The
chain leaves out the tags: they are learnt from labels, and what clicks teach an encoder is not in those.
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
"""What `consume lift` is asked: intervals of a single shop, and the placebo's many draws, are not looked at."""
GROUPS = ("all features", "affinity", "vectors")


def main(
    seeds: Annotated[int, typer.Option(min=2, help="Shops, of seeds 10 and following.")] = 3,
    products: int = 8000,
    users: int = 1500,
    per_user: Annotated[int, typer.Option(help="Impressions of a user.")] = 600,
    pairs: int = 40_000,
    weight: Annotated[float, typer.Option(help="Of the objective in the training, `--align-weight`.")] = 0.0,
    fits: Annotated[int, typer.Option(min=1, help="Training seeds of each ranker.")] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Where it all lies; a chain that is there whole is not run again.")
    ] = None,
) -> None:
    """Run both chains on each shop and say the paired differences."""
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        differences: dict[str, list[float]] = {group: [] for group in GROUPS}
        for seed in range(10, 10 + seeds):
            shop = place / f"shop{seed}"
            without, aligned = (
                measure_lifts(place / f"{name}{seed}", shop, extra, products, users, per_user, pairs, seed, fits)
                for name, extra in (
                    ("without", ""),
                    ("aligned", f" --align {shop}/impressions.parquet --test-days {TEST_DAYS} --align-weight {weight}"),
                )
            )
            for group in GROUPS:
                differences[group].append(aligned[group] - without[group])
                print(f"shop {seed}, {group}: {without[group]:+.4f} without, {aligned[group]:+.4f} aligned", flush=True)
    for group, found in differences.items():
        mean, error = float(np.mean(found)), float(stats.sem(found))
        reach = float(stats.t.ppf(0.975, len(found) - 1)) * error
        print(f"{group}: {mean:+.4f} AUC [{mean - reach:+.4f}, {mean + reach:+.4f}], {len(found)} shops, t interval")


def measure_lifts(
    folder: Path, shop: Path, extra: str, products: int, users: int, per_user: int, pairs: int, seed: int, fits: int
) -> dict[str, float]:
    """AUC lift of each of GROUPS."""
    if (folder / "lift.json").exists():
        return read_lifts(folder / "lift.json")
    folder.mkdir(parents=True, exist_ok=True)
    at = BenchmarkDeployment.opened(folder.name, folder)
    if not (shop / "impressions.parquet").exists():
        sizes = f"--products {products} --users {users} --days {DAYS} --impressions-per-user {per_user}"
        at.run(f"produce shop --output {shop} {sizes} --seed {seed}")
    for line in (
        f"produce catalogue --products {shop}/products.parquet",
        f"produce encoder --data {shop} --output encoder --pairs {pairs} --seed {seed}{extra}",
        "produce embeddings --encoder encoder",
        "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",  # how good they are is not asked here
        f"produce interests --impressions {shop}/impressions.parquet",
        f"produce neighbours --impressions {shop}/impressions.parquet",
        "feast apply",
        f"consume lift --impressions {shop}/impressions.parquet {LIFT} --seeds {fits} --json lift.json",
    ):
        at.run(line)
    return read_lifts(folder / "lift.json")


def read_lifts(file: Path) -> dict[str, float]:
    """AUC lift of each of GROUPS, as `consume lift --json` wrote it."""
    found = json.loads(file.read_text())["comparisons"]
    wanted = [one for one in found if (one["slice"], one["metric"]) == ("all", "auc")]
    return {group: next(one["lift"] for one in wanted if one["name"] == group) for group in GROUPS}


if __name__ == "__main__":
    typer.run(main)
