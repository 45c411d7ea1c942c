"""What noise costs the ranker, with and without the screening of groups; on shops of the demo and on MovieLens.

    python -m tests.benchmarks.screening 0 1 2 --movielens DIR [--keep DIR] [--record]

One process trains the baseline, all features and the placebo twice, on the same rows with the same seeds and
permutations: with the groups that pass the screening, and with every group. The result goes to SCREENING.md. DIR is the
folder of MovieLens. `--keep` names a folder in which deployments stay and are used again.
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from consumers.ranking import lightgbm_ranker, screening
from consumers.ranking.bootstrap import Floats, average_rankers, draw_weights, percentile_interval
from consumers.ranking.content_features import compute_groups
from consumers.ranking.joined_log import read_and_join
from consumers.ranking.placebo import permute_content
from consumers.ranking.prepared_features import PreparedFeatures, prepare_features
from consumers.ranking.splits import find_test_start, find_validation_start, split_rows
from feature_repo import config
from feature_repo.cores import map_on_all_cores
from tests.benchmarks import harness, real, shops
from tests.benchmarks.real import BenchmarkDeployment

TABLE = Path(__file__).parent / "SCREENING.md"
HEAD = [
    "| set | test rows | all features, screened | every group | difference, paired | placebo, screened | every group | "
    "taken | permuted groups taken | training seeds, permutations |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
]


@dataclass(frozen=True)
class ScreeningPlan:
    """The options of `consume lift` that a set is measured with."""

    log: str
    service: str
    test_days: float | None
    seeds: int
    permutations: int
    ablation_rows: int


SHOP = ScreeningPlan("shop/impressions.parquet", "ranking", 10, 3, 5, 60_000)
MOVIELENS = ScreeningPlan("set/impressions.parquet", "ranking_without_labels", None, 5, 20, 250_000)


def main(
    seeds: Annotated[list[int] | None, typer.Argument(help="Seeds of the shops.")] = None,
    movielens: Annotated[Path | None, typer.Option(help="Folder of MovieLens.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder in which deployments stay and are used again.")] = None,
    record: Annotated[bool, typer.Option(help="Write the rows to SCREENING.md; other rows stay.")] = False,
) -> None:
    """Measure each set."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        for seed in seeds or []:
            deployment = shops.deploy_shop(seed, folder)
            _report(measure(f"shop {seed}", deployment, SHOP), record)
        if movielens:
            deployment = real.deploy_movielens(movielens, folder)
            _report(measure("movielens", deployment, MOVIELENS), record)


def measure(name: str, deployment: BenchmarkDeployment, plan: ScreeningPlan) -> str:
    """Return one row of SCREENING.md."""
    settings = config.load(deployment.folder / "feature_store.yaml")
    data, _ = read_and_join(settings, deployment.folder / plan.log, plan.service, datetime.now(UTC))
    test_start = find_test_start(data, plan.test_days)
    split = split_rows(data, find_validation_start(data, test_start), test_start, plan.ablation_rows)
    prepared = prepare_features(data, split, test_start)
    on_validation = draw_weights(data, split.scored & split.train, screening.REPLICATES, 0)
    on_test = draw_weights(data, split.test, 300, 0)

    def screen(groups: dict[str, lightgbm_ranker.BinnedFeatures]) -> tuple[str, ...]:
        base, *alone = map_on_all_cores(
            lambda parts: lightgbm_ranker.fit([prepared.binned_base, *parts], [0], split.ablation).scores[0],
            [[], *([group] for group in groups.values())],
        )
        scores = {each: values[split.validation] for each, values in zip(groups, alone, strict=True)}
        return screening.screen_groups(scores, base[split.validation], on_validation)

    def train(groups: list[lightgbm_ranker.BinnedFeatures], seeds: list[int]) -> Floats:
        scores = lightgbm_ranker.fit([prepared.binned_base, *groups], seeds).scores[:, ~split.validation]
        return on_test.compute_two_way_auc(scores)

    seeds = list(range(plan.seeds))
    base = train([], seeds)
    taken = screen(dict(prepared.binned_groups))
    screened = train([prepared.binned_groups[each] for each in taken], seeds) - base
    every = train([*prepared.binned_groups.values()], seeds) - base
    permuted, placebo_screened, placebo_every = 0, [], []
    for permutation in range(plan.permutations):
        groups = _bin_permuted(prepared, permutation)
        passed = screen(groups)
        permuted += len(passed)
        seed = permutation % plan.seeds
        placebo_screened.append(train([groups[each] for each in passed], [seed])[0])
        placebo_every.append(train([*groups.values()], [seed])[0])
    # As `consume lift` does: the placebo is averaged over permutations, the baseline over seeds.
    cells = [
        name,
        f"{int(split.test.sum()):,}",
        _format(average_rankers(screened, 0)),
        _format(average_rankers(every, 0)),
        _format(average_rankers(screened - every, 0)),
        _format(average_rankers(np.stack(placebo_screened), 0) - average_rankers(base, 1)),
        _format(average_rankers(np.stack(placebo_every), 0) - average_rankers(base, 1)),
        ", ".join(taken) or "none",
        f"{permuted} of {plan.permutations * len(prepared.groups)}",
        f"{plan.seeds}, {plan.permutations}",
    ]
    return f"| {' | '.join(cells)} |"


def _bin_permuted(prepared: PreparedFeatures, permutation: int) -> dict[str, lightgbm_ranker.BinnedFeatures]:
    """Each group of features after products exchanged their content, in bins."""
    permuted = permute_content(prepared.data, prepared.test_start, permutation)
    groups = compute_groups(permuted, prepared.projection)
    return dict(zip(groups, map_on_all_cores(prepared.bin, groups.values()), strict=True))


def _format(lift: Floats) -> str:
    low, high = percentile_interval(lift)
    return f"{lift[0]:+.4f} [{low:+.4f}, {high:+.4f}]"


def _report(row: str, record: bool) -> None:
    print(row, flush=True)
    if not record:
        return
    kept = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = {line.split("|")[1].strip(): line for line in kept if line.startswith("| ") and line not in HEAD}
    rows[row.split("|")[1].strip()] = row
    run = harness.describe_machine()
    text = [
        "# What noise costs the ranker",
        "",
        "Written by `python -m tests.benchmarks.screening`: AUC differences to the baseline on the test days with 95%",
        "intervals, users and products drawn. A group is taken if it lifts the baseline on the validation days by more",
        "than its standard error.",
        f"Last written at {run['commit']}, {run['date']}, {run['machine']}.",
        "",
        *HEAD,
        *(rows[each] for each in sorted(rows, key=lambda each: (not each.startswith("shop"), each))),
    ]
    TABLE.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    typer.run(main)
