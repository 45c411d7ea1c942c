"""What an adapter between two encoders keeps: recall of every map, and lift of one whose rows are derived.

    python -m tests.benchmarks.adapter SOURCE TARGET [--adapted FOLDER --impressions LOG] [--record]

The deployment (--store) has vectors of both encoders for the same products. For the lift it also has the tags, codes,
interests and neighbours of TARGET and of the adapted encoder, which `produce` writes with `--encoder-version`: a ranker
with all features of one version is compared with the ranker that has none of content. The lift kept is the ratio of
both lifts; its interval is over drawn users and products, with the same draws on both sides.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from consumers.gate.clicks import score_all_features
from consumers.ranking import lightgbm_ranker
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.bootstrap import average_rankers, draw_weights, percentile_interval
from consumers.ranking.joined_log import read_and_join
from consumers.ranking.splits import find_test_start
from feature_repo import config
from feature_repo.config import Settings
from feature_repo.console import StoreOption
from producers.encoders import checkpoint_version
from producers.encoders.adapted.encoder import read_adapter
from producers.encoders.adapted.vector_map import MapKind
from producers.learning.adapter import train_adapter
from tests.benchmarks.backfill import UPGRADE_FILE, UPGRADE_TITLE
from tests.benchmarks.harness import RecordOption, replace_section

SEEDS = 2
REPLICATES = 200


def measure_lift_kept(settings: Settings, impressions: Path, versions: tuple[str, str]) -> list[str]:
    """Return lines with the lift of the target's features and of the adapted ones, and the share that is kept."""
    now = datetime.now(UTC)
    joined = [read_and_join(settings, impressions, "ranking", now, encoder_version=one)[0] for one in versions]
    start = find_test_start(joined[0], None)
    test = joined[0].timestamp_us >= start
    weights = draw_weights(joined[0], test, REPLICATES, seed=0)
    base = lightgbm_ranker.fit_and_score(
        dict(compute_baseline(joined[0])), joined[0].clicked, ~test, test, list(range(SEEDS))
    )
    rows = np.ones(int(test.sum()), bool)
    scores = [base, *(score_all_features(each, test, start, range(SEEDS)) for each in joined)]
    before, native, adapted = (weights.compute_two_way_auc(each, rows) for each in scores)
    lifts = [average_rankers(each - before, seed=0) for each in (native, adapted)]
    names = ("features of the target", "adapted features")
    lines = [f"- lift of the {name}: {_format(lift)}" for name, lift in zip(names, lifts, strict=True)]
    return [*lines, f"- lift kept: {_format(lifts[1] / lifts[0])}, {len(rows):,} test rows"]


def _format(values: NDArray[np.float64]) -> str:
    """Return the first value with the interval of the others."""
    low, high = percentile_interval(values)
    return f"{values[0]:+.4f} [{low:+.4f}, {high:+.4f}]"


def measure(
    source: Annotated[str, typer.Argument(help="Checkpoint of the encoder whose vectors are mapped.")],
    target: Annotated[str, typer.Argument(help="Checkpoint of the encoder whose space they are mapped into.")],
    adapted: Annotated[Path | None, typer.Option(help="An adapter of both whose rows are derived.")] = None,
    impressions: Annotated[Path | None, typer.Option(help="The log, for the lift.")] = None,
    store: StoreOption = None,
    record: RecordOption = False,
) -> None:
    """Fit every map between two encoders and print what it keeps; with --record write it to UPGRADE.md."""
    settings = config.load(store)
    versions = [checkpoint_version.read_version(one) for one in (source, target)]
    lines = ["| map | vectors | recall@10 kept | without the adapter | cosine |", "| --- | --- | --- | --- | --- |"]
    for kind in MapKind:
        with tempfile.TemporaryDirectory() as folder:
            summary = train_adapter(
                settings,
                encoder=source,
                source_version=versions[0],
                target_version=versions[1],
                kind=kind,
                output=Path(folder) / "adapted",
                name=None,
                seed=0,
            )
        lines += [
            f"| {kind} | {loss.vectors} | {loss.recall[0]:.3f} [{loss.recall[1]:.3f}, {loss.recall[2]:.3f}] "
            f"| {loss.source_recall:.3f} | {loss.cosine:.3f} |"
            for loss in summary.losses
        ]
    lines += ["", f"Fitted on {summary.fitted:,} products, measured on {summary.losses[-1].products:,} others."]
    if adapted is not None and impressions is not None:
        kind = read_adapter(adapted).kind
        lines += [f"AUC of a ranker over one without content features, map {kind}:", ""]
        lines += measure_lift_kept(settings, impressions, (versions[1], checkpoint_version.read_version(str(adapted))))
    typer.echo("\n".join(lines))
    if record:
        names = [version.rpartition("@")[0] for version in versions]
        replace_section(UPGRADE_FILE, UPGRADE_TITLE, f"Adapter from {names[0]} to {names[1]}", lines)


if __name__ == "__main__":
    typer.run(measure)
