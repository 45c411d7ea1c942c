"""Groups of the same product on the demo shop, split by design: one half of the designs is learned from.

    python -m tests.benchmarks.groups --store demo/feature_store.yaml --shop demo/shop

The store holds the catalogue and the vectors of the generated shop. Every candidate pair of two products of the first
half is judged by the truth; the figures are of the other half. `alone` looks at pairs of two products of that half, as
in a shop of their own; `in the shop` also at pairs of a product of it with one of the first half, which are different;
they count half, because the other half of them belongs to the first half's figures. Recall is over all pairs of one
design, also those that are no candidates. Pairs of the best-selling tenth are those with at least one product of it.
95% intervals resample designs.
"""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from feature_repo import config
from feature_repo.index import update
from feature_repo.index.product_index import open_index
from feature_repo.index.rows import INDEX_ROWS
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.metric import PairMetric
from producers.groups import matching, matching_index
from producers.groups.candidates import find_candidates, list_missing_pairs
from producers.groups.clustering import cluster_products
from producers.groups.products import read_products
from producers.groups.train import choose_threshold
from producers.tags.embedding_rows import choose_encoder_version

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DRAWS = 300
WITHHELD = ("brand", "price", "category", "title")


class TestHalf:
    """The pairs that figures are about."""

    def __init__(self, design: Int64, seed: int) -> None:
        self.design = design
        self.is_learned = np.random.default_rng(seed).random(int(design.max()) + 1) < 0.5
        self.is_test = ~self.is_learned[design]
        order = np.argsort(design, kind="stable")
        self.of_design = np.split(order, np.flatnonzero(np.diff(design[order])) + 1)

        self.truth = list_grouped(design)

    def measure(self, left: Int64, right: Int64, wanted: Bools, *, alone: bool) -> str:
        """Return precision, recall and F1 of the chosen pairs that have a product of this half that is wanted."""
        hit = self.design[left] == self.design[right]
        counted, of_truth = self._count(left, right, wanted, alone), self._count(*self.truth, wanted, alone)
        owner = np.where(self.is_test[left], self.design[left], self.design[right])[counted]
        designs = len(self.is_learned)
        weight = np.where(self.is_test[left] & self.is_test[right], 1.0, 0.5)[counted]
        hits, chosen = (np.bincount(owner, values, designs) for values in (hit[counted], weight))
        total = np.bincount(self.design[self.truth[0][of_truth]], minlength=designs)
        rng = np.random.default_rng(0)
        tested = np.flatnonzero(~self.is_learned)
        draws = [rng.choice(tested, len(tested)) for _ in range(DRAWS)]
        f1 = [2 * hits[d].sum() / (chosen[d].sum() + total[d].sum()) for d in draws]
        low, high = np.quantile(f1, [0.025, 0.975])
        precision, recall = hits.sum() / max(1, chosen.sum()), hits.sum() / total.sum()
        value = 2 * hits.sum() / (chosen.sum() + total.sum())
        return f"F1 {value:.3f} ({low:.3f} to {high:.3f}), precision {precision:.3f}, recall {recall:.3f}"

    def _count(self, left: Int64, right: Int64, wanted: Bools, alone: bool) -> Bools:
        is_wanted = self.is_test & wanted
        counted = is_wanted[left] | is_wanted[right]
        return counted & self.is_test[left] & self.is_test[right] if alone else counted


def main(
    store: Annotated[Path, typer.Option(help="feature_store.yaml of the demo.")],
    shop: Annotated[Path, typer.Option(help="The folder of the generated shop, with its truth.")],
    seed: Annotated[int, typer.Option(help="Seed of the halves.")] = 0,
) -> None:
    settings = config.load(store)
    version = choose_encoder_version(settings, None)
    products = read_products(settings, version, NOW)
    truth = pq.read_table(shop / "truth" / "products.parquet", columns=["product_id", "design_id"])
    rows = pc.index_in(products["product_id"], value_set=truth["product_id"].combine_chunks())
    design = truth["design_id"].take(rows).combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    half = TestHalf(design, seed)
    everything = np.ones(len(products), bool)
    _measure_cosines(products, half, everything)
    print(measure_graph(matching.list_spaces(products, PairMetric({}, {})), design))
    for name, columns in (("without brand, price, title", WITHHELD), ("all", ())):
        table = products.drop_columns(list(columns))
        since = time.process_time()
        summary = matching.train_matcher(
            table, _judge_first_half(table, half), encoder_version=version, seed=seed, now=NOW
        )
        verifier = summary.verifier
        left, right, alone, probability = _score_all(table, verifier)
        print(f"{name}: {summary.pairs:,} pairs judged, {len(left):,} scored, {time.process_time() - since:.0f} CPU s")
        for what, score, threshold in (
            ("pairs alone", alone, verifier.threshold),
            ("with context", probability, verifier.group_threshold),
        ):
            chosen = score >= threshold
            for protocol in (True, False):
                figure = half.measure(left[chosen], right[chosen], everything, alone=protocol)
                print(f"  {what}, {'alone' if protocol else 'in the shop'}: {figure}")
        group = cluster_products(left, right, probability, len(table), threshold=verifier.group_threshold)
        a, b = list_grouped(group)
        sales = products["sales"].to_numpy()
        best = sales >= np.quantile(sales, 0.9)
        for what, wanted in (("groups", everything), ("groups, best-selling tenth", best)):
            for protocol in (True, False):
                print(
                    f"  {what}, {'alone' if protocol else 'in the shop'}: {half.measure(a, b, wanted, alone=protocol)}"
                )


def measure_graph(spaces: dict[str, NDArray[np.float32]], designs: Int64 | None = None) -> str:
    """Return the share of the exact candidates, and of those of one design, that an index with graphs finds."""
    n = len(next(iter(spaces.values())))
    ids = [f"p{number:08d}" for number in range(n)]
    rows = pa.Table.from_pylist([{"product_id": one} for one in ids], INDEX_ROWS)
    vectors = {f"{name}_vector": matrix for name, matrix in spaces.items()}
    flat_rows, update.FLAT_ROWS = update.FLAT_ROWS, 0
    with tempfile.TemporaryDirectory() as folder:
        products = update.IndexedProducts(rows, vectors, {})
        update.build_index(Path(folder) / "index", "benchmark@1", products, has_keywords=False)
        update.FLAT_ROWS = flat_rows
        near = matching_index.find_candidates(open_index(Path(folder) / "index"), np.arange(n), np.arange(n), top_k=30)
    left, right = find_candidates(spaces, np.arange(n))
    is_found = np.isin(left * n + right, near[0] * n + near[1])
    text = f"candidates by graphs: {is_found.mean():.4f} of {len(left):,} exact ones"
    if designs is not None:
        is_same = designs[left] == designs[right]
        text += f", {is_found[is_same].mean():.4f} of the {is_same.sum():,} of one design"
    return text


def _measure_cosines(products: pa.Table, half: TestHalf, everything: Bools) -> None:
    """Print the figures of a cosine, whose threshold is the best on the first half."""
    spaces = matching.list_spaces(products, PairMetric({}, {}))
    spaces["image"] = matching.to_matrix(products["image_vector"])
    left, right = find_candidates(spaces, np.arange(len(products)))
    is_learned = ~half.is_test[left] & ~half.is_test[right]
    for name, vectors in spaces.items():
        cosine = np.nan_to_num((vectors[left] * vectors[right]).sum(axis=1), nan=-1)
        is_same = half.design[left] == half.design[right]
        threshold, _ = choose_threshold(cosine[is_learned], is_same[is_learned], np.ones(is_learned.sum()))
        chosen = cosine >= threshold
        for protocol in (True, False):
            figure = half.measure(left[chosen], right[chosen], everything, alone=protocol)
            print(f"cosine of {name}, {'alone' if protocol else 'in the shop'}: {figure}")


def _judge_first_half(products: pa.Table, half: TestHalf) -> LabelledPairs:
    """Return the truth about every pair of one design and every near pair of the first half."""
    n = len(products)
    spaces = matching.list_spaces(products, PairMetric({}, {}))
    near = find_candidates(spaces, np.arange(n))
    same = list_missing_pairs(*near, half.of_design, n)
    left, right = (np.concatenate(sides) for sides in zip(near, same, strict=True))
    is_learned = ~half.is_test[left] & ~half.is_test[right]
    left, right = left[is_learned], right[is_learned]
    is_same = half.design[left] == half.design[right]
    # Half of the products that a product is different from are judged, and all that are the same.
    weight = np.where(is_same, 1.0, 2.0)
    return LabelledPairs(left, right, is_same, weight / weight.mean())


def _score_all(
    products: pa.Table, verifier: matching.PairVerifier
) -> tuple[Int64, Int64, NDArray[np.float32], NDArray[np.float32]]:
    """Return all candidate pairs, their probability alone, and with context."""
    n = len(products)
    left, right = find_candidates(matching.list_spaces(products, verifier.metric), np.arange(n))
    alone = matching.score_candidates(lambda rows: products.take(pa.array(rows)), left, right, verifier)
    probability = matching.score_context(left, right, alone, n, verifier)
    return left, right, alone, probability


def list_grouped(group: Int64) -> tuple[Int64, Int64]:
    """Return all pairs of products of one group."""
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return list_missing_pairs(np.empty(0, np.int64), np.empty(0, np.int64), members, len(group))


if __name__ == "__main__":
    typer.run(main)
