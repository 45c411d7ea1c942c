"""An encoder before and after `produce encoder --task`, on the designs that were held out, of the generated shop.

    produce encoder --data SHOP --output ENCODER
    produce encoder --data SHOP --from ENCODER --task TASK --designs SHOP/truth/products.parquet --output TUNED
    python -m tests.benchmarks.tuning --shop SHOP --encoder ENCODER --tuned TUNED --record

Only held-out products are measured, and only among each other. The truth says which are of one design, and which fit a
sentence; the sentences are those of `tests.benchmarks.selection`. Pictures are ranked for a sentence by the cosine with
the image vector alone. F1 is of the pairs of one design; a product is paired with its ten nearest. The threshold of one
half of the designs decides about the other half.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.evaluation.average_precision import compute_average_precision
from feature_repo.fusion import SAME_PRODUCT, fuse
from feature_repo.schema import PRODUCT_ID
from producers.encoders import load
from producers.encoders.encoder import Vectors
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.recall import encode_pairs
from producers.encoders.tuning.examples import Rows
from producers.encoders.tuning.measures import Values, draw_interval, measure_same_recall, measure_title_recall
from producers.groups.train import choose_threshold
from producers.learning.encoder import HELD_OUT, read_pairs
from tests.benchmarks import harness
from tests.benchmarks.selection import make_queries, read_words

TABLE = Path(__file__).parent / "TUNING.md"
NEAREST = 10
DRAWS = 300
HEAD = ("shop", "tuned for", "measure", "before", "after", "difference", "of", "command", "commit, date, machine")
HEADING = [
    "# Encoders tuned for one use",
    "",
    "Written by `python -m tests.benchmarks.tuning ... --record` and `... tuning_photographs ... --record`, never by",
    "hand. Products that the tuning has not learned from, whole designs, and only they are searched; on photographs by",
    "the measures of the command's own report. Differences have their 95% interval by the paired bootstrap over",
    "designs, or over sentences.",
    "",
]


def measure_shop(shop: Path, encoder: Path, tuned: Path, seed: int) -> list[tuple[str, float, float, str, str]]:
    """Return measure, value before, value after, difference with interval, and number of queries."""
    held_out = pq.read_table(tuned / HELD_OUT)
    products, images, _ = read_pairs(shop)
    rows = pc.index_in(held_out[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks()).to_numpy()
    truth = pq.read_table(shop / "truth" / "products.parquet")
    order = pc.index_in(held_out[PRODUCT_ID], value_set=truth[PRODUCT_ID].combine_chunks())
    table = truth.take(order)
    titles = products["title"].take(pa.array(rows)).to_pylist()
    vectors, kept = [], np.ones(len(rows), bool)
    queries = make_queries(table.to_pydict(), read_words(shop), np.arange(len(rows)), seed)
    for folder in (encoder, tuned):
        opened = load(str(folder), device="cpu")
        with open_decoding_pool(1) as pool:
            image, text, kept = encode_pairs(opened, titles, [images[row] for row in rows], pool)
        fused = fuse(image, text, SAME_PRODUCT, opened.space)
        vectors.append((image, text, fused, opened.encode_texts([query.text for query in queries])))
    design = np.unique(np.array(table["design_id"].to_pylist())[kept], return_inverse=True)[1]
    category = np.array(table["category"].to_pylist())[kept]
    results = []

    def add(name: str, before: Values, after: Values, clusters: Rows) -> None:
        valid = np.isfinite(before) & np.isfinite(after)
        if valid.any():
            low, high = draw_interval(before[valid], after[valid], clusters[valid])
            gain = after[valid].mean() - before[valid].mean()
            interval = f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"
            results.append((name, before[valid].mean(), after[valid].mean(), interval, f"{valid.sum():,} queries"))

    everything = np.arange(len(design))
    for number, kind in enumerate(("image", "text", "fused")):
        values = [measure_same_recall(one[number], design, everything) for one in vectors]
        add(f"recall@10 of the same design, {kind}", *values, design)
    is_first = np.random.default_rng(seed).random(int(design.max()) + 1) < 0.5
    for number, kind in ((0, "image"), (2, "fused")):
        counts = [count_pairs(one[number], design, is_first) for one in vectors]
        results.append((f"F1 of pairs of one design, {kind}", *compare_f1(*counts)))
    new_row = np.cumsum(kept) - 1
    precision = []
    for image, _, _, sentences in vectors:
        values = np.full(len(queries), np.nan)
        for line, (query, sentence) in enumerate(zip(queries, sentences, strict=True)):
            among = np.flatnonzero(category == query.where.categories[0])
            fits = np.isin(among, new_row[query.relevant[kept[query.relevant]]])
            values[line] = compute_average_precision(image[among] @ sentence, fits, int(fits.sum()))
        precision.append(values)
    kinds = np.array([query.kind for query in queries])
    for kind in dict.fromkeys(kinds.tolist()):
        own = kinds == kind
        add(f"AP@50 of sentences, image, {kind}", precision[0][own], precision[1][own], np.flatnonzero(own))
    values = [measure_title_recall(one[1], one[0], design) for one in vectors]
    add("recall@10 of the picture of a title", *values, design)
    return results


def count_pairs(vectors: Vectors, design: Rows, is_first: np.ndarray) -> np.ndarray:
    """Return the right pairs, the taken pairs and all pairs of one design, by design [3, designs].

    The threshold of each half of the designs is chosen on the other half.
    """
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    near = np.argpartition(-cosines, NEAREST, axis=1)[:, :NEAREST]
    left, right = np.repeat(np.arange(len(design)), NEAREST), near.ravel()
    key = np.unique(np.minimum(left, right) * len(design) + np.maximum(left, right))
    left, right = key // len(design), key % len(design)
    score, same = cosines[left, right], design[left] == design[right]
    sizes = np.bincount(design)
    counts = np.zeros((3, len(sizes)))
    counts[2] = sizes * (sizes - 1) / 2
    for half in (is_first, ~is_first):
        other = ~half[design[left]] & ~half[design[right]]
        threshold, _ = choose_threshold(score[other], same[other], np.ones(int(other.sum())))
        taken = half[design[left]] & half[design[right]] & (score >= threshold)
        counts[0] += np.bincount(design[left][taken & same], minlength=len(sizes))
        counts[1] += np.bincount(design[left][taken], minlength=len(sizes))
    return counts


def compare_f1(before: np.ndarray, after: np.ndarray) -> tuple[float, float, str, str]:
    def f1(counts: np.ndarray, drawn: np.ndarray) -> float:
        right, taken, total = counts[:, drawn].sum(axis=1)
        return float(2 * right / (taken + total))

    rng, everything = np.random.default_rng(0), np.arange(before.shape[1])
    draws = [rng.integers(0, len(everything), len(everything)) for _ in range(DRAWS)]
    low, high = np.percentile([f1(after, drawn) - f1(before, drawn) for drawn in draws], [2.5, 97.5])
    values = f1(before, everything), f1(after, everything)
    return *values, f"{values[1] - values[0]:+.3f} [{low:+.3f}, {high:+.3f}]", f"{int(before[2].sum()):,} pairs"


def record(rows: list[list[str]]) -> None:
    """Replace the rows of the same shop, task and measure."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    kept = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][2:]
    new = {tuple(row[:3]) for row in rows}
    rows = [row for row in kept if tuple(row[:3]) not in new] + rows
    table = [HEAD, ["---"] * len(HEAD), *rows]
    TABLE.write_text("\n".join([*HEADING, *(f"| {' | '.join(row)} |" for row in table)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--name", default="demo, seed 0", help="of the shop, in the table")
    parser.add_argument("--task", required=True, help="what the encoder was tuned for, in the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write the figures to TUNING.md")
    given = parser.parse_args()
    results = measure_shop(given.shop, given.encoder, given.tuned, given.seed)
    for name, before, after, interval, of in results:
        print(f"{name}: {before:.3f} before, {after:.3f} after, {interval}, {of}")
    if given.record:
        at = harness.describe_machine()
        command = f"`python -m tests.benchmarks.tuning --task {given.task}`"
        made = f"{at['commit']}, {at['date']}, {at['machine']}"
        record(
            [
                [given.name, given.task, name, f"{before:.3f}", f"{after:.3f}", interval, of, command, made]
                for name, before, after, interval, of in results
            ]
        )


if __name__ == "__main__":
    main()
