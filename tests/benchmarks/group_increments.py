"""The cost of `produce groups` for 10,000 new products of a small and of a large catalogue.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.group_increments [--products 1000000] [--record]

Products are offers of generated designs, by 1 to 4 sellers, with vectors of 32 values: a latent of 16 values, mapped
linearly, plus noise. They have no pictures. The verifier learns from the truth about some designs; the catalogue is
grouped by the truth and its index is built, without measuring either. Half of the new products are of designs of the
catalogue. Each round groups the same new products in a copy of either store, and no round merges segments.
"""

import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from feature_repo import config, schema
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.config import Settings
from feature_repo.offline import delta, production
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.metric import PairMetric
from feature_repo.pairs.verifier import FOLDER, PairVerifier, save_verifier
from producers.groups import group_rows, matching_index, pairs
from producers.groups.candidates import find_candidates, list_missing_pairs
from producers.groups.matching import list_spaces, train_matcher
from producers.groups.pairs import ScoredPairs
from producers.groups.run import GroupingSummary, group_products
from tests.benchmarks import harness

WIDTH, LATENT, NOISE = 32, 16, 0.35
ADDED = 10_000
LEARNED = 400
"""Designs whose truth the verifier learns."""
VERSION = "benchmark@1"
START = datetime(2026, 3, 1, tzinfo=UTC)
BLOCK = 100_000
WORDS = 20_000
"""Words of titles."""


def make_offers(design: np.ndarray, first: int) -> pa.Table:
    """Return an offer of each design: catalogue columns and vectors. Offers are numbered from `first`."""
    rng = np.random.default_rng([1, first])
    n = len(design)
    names, of = np.unique(design, return_inverse=True)
    latents = np.stack([np.random.default_rng([2, int(one)]).normal(size=2 * LATENT) for one in names])[of]
    mapping = np.random.default_rng(0).normal(size=(2, LATENT, WIDTH)) / np.sqrt(LATENT)
    vectors = {}
    for number, name in enumerate(("image", "text")):
        matrix = latents[:, number * LATENT : (number + 1) * LATENT] @ mapping[number]
        vectors[name] = _unit(matrix + NOISE * rng.normal(size=matrix.shape))
    for name, share in (("fused", 0.5), ("similar", 0.7)):
        vectors[name] = _unit(share * vectors["image"] + (1 - share) * vectors["text"])
    drawn = [np.random.default_rng([3, int(one)]) for one in names]
    title = [[f"word{one}" for one in rng_.integers(0, WORDS, 6)] for rng_ in drawn]
    price = np.array([rng_.uniform(5, 500) for rng_ in drawn])[of]
    brand = [f"brand{rng_.integers(0, 500)}" for rng_ in drawn]
    kept = rng.random((n, 6)) < 0.7
    titles = [" ".join(np.array(title[row])[is_kept]) for row, is_kept in zip(of, kept, strict=True)]
    return pa.table(
        {
            "product_id": [f"p{first + number:08d}" for number in range(n)],
            "title": titles,
            "brand": [brand[row] for row in of],
            "category": [f"category {int(one) % 50}" for one in design],
            "price": price * np.exp(0.05 * rng.normal(size=n)),
            "seller_id": [f"s{one}" for one in rng.integers(0, 1000, n)],
            **{f"{name}_vector": matrix_to_lists(matrix) for name, matrix in vectors.items()},
        }
    )


def write_offers(settings: Settings, offers: pa.Table, created: datetime) -> None:
    for table, fields in (
        (schema.CATALOGUE_TABLE, schema.CATALOGUE),
        (schema.EMBEDDING_TABLE, schema.PRODUCT_EMBEDDING),
    ):
        given: dict[str, Any] = {name: offers[name] for name in offers.column_names}
        time_ = pa.repeat(pa.scalar(created, schema.TIMESTAMP), len(offers))
        given |= {"event_timestamp": time_, "created_timestamp": time_}
        given["encoder_version"] = pa.repeat(pa.scalar(VERSION), len(offers))
        columns = [
            given[field.name].cast(field.type) if field.name in given else pa.nulls(len(offers), field.type)
            for field in fields
        ]
        delta.append(settings.table(table), pa.table(columns, schema=fields))


def make_store(folder: Path, products: int, verifier: PairVerifier) -> Settings:
    """Write the tables and the index of a grouped catalogue."""
    settings = _deployment(folder)
    design = np.sort(np.random.default_rng(5).integers(0, products * 2 // 5, products))
    for start in range(0, products, BLOCK):
        write_offers(settings, make_offers(design[start : start + BLOCK], start), START)
    production.record_first_version(settings.offline, VERSION, START)
    save_verifier(settings.offline / FOLDER, verifier)
    index = matching_index.update_matching_index(settings, VERSION, verifier, START)
    print(f"{products:,}: {index.manifest.recall}", flush=True)
    rows = np.arange(products)
    ids = index.take(rows, ["product_id"])["product_id"].combine_chunks()
    order = pc.sort_indices(ids).to_numpy()
    of = np.empty(products, np.int64)
    of[order] = design  # ids are numbered in the order of `design`
    digests = group_rows.add_maker(
        matching_index.read_digests(index, rows), verifier.version, one_per_seller=False, top_k=30
    )
    groups = pa.array([f"g-{one:016x}" for one in of.tolist()])
    time_ = pa.repeat(pa.scalar(START, schema.TIMESTAMP), products)
    version = pa.repeat(pa.scalar(verifier.version), products)
    encoder = pa.repeat(pa.scalar(VERSION), products)
    delta.append(
        settings.table(schema.GROUP_TABLE),
        pa.table(
            [ids, groups, version, encoder, time_, time_, group_rows.input_digest.to_arrow(digests)],
            schema=schema.PRODUCT_GROUP,
        ),
    )
    change, former = pa.repeat(pa.scalar("joined"), products), pa.nulls(products, pa.string())
    joined = [ids, change, former, groups, version, time_, time_]
    delta.append(settings.table(schema.GROUP_JOURNAL_TABLE), pa.table(joined, schema=schema.PRODUCT_GROUP_JOURNAL))
    members = np.split(np.argsort(of, kind="stable"), np.flatnonzero(np.diff(np.sort(of))) + 1)
    none = np.empty(0, np.int64)
    left, right = list_missing_pairs(none, none, members, products)
    weak = np.random.default_rng(6).integers(0, products, (2, 2 * products))
    weak = weak[:, weak[0] < weak[1]]
    sure = (1 + verifier.group_threshold) / 2
    probability = np.repeat(np.float32([sure, 0.05]), [len(left), weak.shape[1]])
    scored = ScoredPairs(
        np.concatenate([left, weak[0]]), np.concatenate([right, weak[1]]), probability, probability
    ).replace_pairs(ScoredPairs(none, none, np.empty(0, np.float32), np.empty(0, np.float32)), products)
    delta.append(settings.table(schema.PAIR_TABLE), pairs.build_pair_rows(scored, ids, verifier.version, START))
    return settings


def train_verifier() -> PairVerifier:
    design = np.sort(np.random.default_rng(7).integers(0, LEARNED, LEARNED * 5 // 2)) + 10_000_000
    offers = make_offers(design, 90_000_000)
    near = find_candidates(list_spaces(offers, PairMetric({}, {})), np.arange(len(offers)))
    pairs_ = LabelledPairs(*near, design[near[0]] == design[near[1]], np.ones(len(near[0])))
    trained = train_matcher(offers, pairs_, encoder_version=VERSION, seed=0, now=START)
    print(f"verifier: F1 {trained.pair_f1:.3f} alone, {trained.group_f1:.3f} with context", flush=True)
    return trained.verifier


def measure_increment(store: Path) -> tuple[float, float, GroupingSummary]:
    """Return wall and CPU seconds of grouping new products in a copy of a store."""
    copy = store.with_name(f"{store.name}-copy")
    subprocess.run(["cp", "-al", str(store), str(copy)], check=True)
    settings = _deployment(copy)
    products = int(store.name)
    rng = np.random.default_rng(8)
    design = rng.integers(0, products * 2 // 5, ADDED // 2)
    fresh = rng.integers(20_000_000, 20_000_000 + ADDED // 5, ADDED // 2)
    write_offers(settings, make_offers(np.concatenate([design, fresh]), 50_000_000), START)
    start, cpu = time.perf_counter(), time.process_time()
    summary = group_products(
        settings, judgements=None, encoder_version=None, one_per_seller=False, top_k=30, seed=0, now=datetime.now(UTC)
    )
    seconds = time.perf_counter() - start, time.process_time() - cpu
    shutil.rmtree(copy)
    return *seconds, summary


def main(
    products: Annotated[int, typer.Option(min=60_000, help="Products of the larger catalogue.")] = 1_000_000,
    smaller: Annotated[int, typer.Option(min=60_000, help="Products of the smaller one.")] = 100_000,
    rounds: harness.RoundsOption = 3,
    record: harness.RecordOption = False,
    folder: Annotated[Path | None, typer.Option(help="Keep the stores here, and use those that are there.")] = None,
) -> None:
    """Build both stores and print the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        verifier = None
        for count in (smaller, products):
            if not (root / str(count)).exists():
                verifier = verifier or train_verifier()
                since = time.process_time()
                make_store(root / "unfinished", count, verifier)
                (root / "unfinished").rename(root / str(count))
                print(f"{count:,} products: store made in {time.process_time() - since:.0f} CPU seconds", flush=True)
        taken: dict[str, list[float]] = {"large": [], "small": []}
        summary = None
        for _ in range(rounds):
            for name, count in (("large", products), ("small", smaller)):
                wall, cpu, summary = measure_increment(root / str(count))
                taken[name].append(cpu)
                print(f"{ADDED:,} added to {count:,}: {wall:.1f} s, {cpu:.1f} CPU s; {summary}", flush=True)
        assert summary is not None
        figure = harness.compare_sides(
            f"group {ADDED:,} products added to {products:,}",
            taken,
            "large",
            "small",
            f"CPU seconds, one thread; the other side is a catalogue of {smaller:,}; {WIDTH}-d vectors, no pictures",
        )
        harness.report_figures([figure], record)


def _deployment(folder: Path) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "feature_store.yaml"
    file.write_text("project: benchmark\noffline_store:\n  path: offline\n")
    return config.load(file)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    typer.run(main)
