"""Selection by a sentence on the generated shop, as titles are stuffed: average precision beside BM25.

    python -m tests.benchmarks.selection --shop demo/shop --towers demo/towers

The store, which FEAST_FS_YAML_FILE_PATH names, needs `produce index`, and the towers are those of its encoder
(`produce export`). For `shop`, the words that do not apply are taken out of the titles first. Then a share of them is
stuffed with four words of other colours, patterns and emblems. Text vectors, keywords and the word model are made
anew from the stuffed titles. The index is written to a temporary folder.

Queries, chosen before anything was measured:

    one, usual     a category (the filter) and one colour, pattern or emblem in its most frequent word
    one, any       the same, in a word drawn from all synonyms
    two, three     a category and two or three attributes of a product of that category, words drawn from all synonyms
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from consumers.search.evaluation import JudgedQuery
from consumers.search.report import SearchReport, render_tables, report_search
from feature_repo import config, console
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.index.filters import ProductFilter
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.rows import TEXTURES, WORDS, find_folder
from feature_repo.index.update import IndexedProducts, build_index, gather_products
from producers.index.word_model import WordModel, fit_word_model
from tests.benchmarks.selection_record import record_reports

RATES = (0.0, 0.25, 0.5, 0.75)
ATTRIBUTES = ("colour", "pattern", "emblem")
STUFFED_WORDS = 4
SENTENCES = 200
"""Drawn sentences of two, and of three attributes; those of a product with too few attributes are left out."""

Words = dict[tuple[str, str], list[str]]


def read_words(shop: Path) -> Words:
    words: Words = {}
    for row in pq.read_table(shop / "truth" / "words.parquet").to_pylist():
        words.setdefault((row["attribute"], row["value"]), []).append(row["word"])
    return words


def clean_titles(titles: Sequence[str], truth: dict[str, list], words: Words) -> list[str]:
    """Return titles without the words of values that the product does not have."""
    cleaned = []
    for number, title in enumerate(titles):
        for (attribute, value), synonyms in words.items():
            true = truth[attribute][number]
            if value == true:
                continue
            for word in sorted(synonyms, key=len, reverse=True):
                if not any(word in own for own in words.get((attribute, true), [])):
                    title = title.replace(word, "")
        cleaned.append(title)
    return cleaned


def stuff_titles(titles: Sequence[str], truth: dict[str, list], words: Words, rate: float, seed: int) -> list[str]:
    """Return titles; a share of them has STUFFED_WORDS more words, of other values, all before or all after its own."""
    rng = np.random.default_rng(seed)
    values = [key for key in words if key[0] in ATTRIBUTES]
    stuffed = list(titles)
    for number in np.flatnonzero(rng.random(len(titles)) < rate).tolist():
        other = [key for key in values if truth[key[0]][number] != key[1]]
        drawn = [other[i] for i in rng.permutation(len(other))[:STUFFED_WORDS]]
        added = " ".join(str(rng.choice(words[key])) for key in drawn)
        stuffed[number] = f"{added} {titles[number]}" if rng.random() < 0.5 else f"{titles[number]} {added}"
    return stuffed


def make_queries(truth: dict[str, list], words: Words, rows: np.ndarray, seed: int) -> list[JudgedQuery]:
    """Return the queries of the shop; `rows` are the rows of the index of the products of the truth."""
    rng = np.random.default_rng(seed)
    columns = {name: np.array([str(value) for value in truth[name]]) for name in (*ATTRIBUTES, "category")}
    categories = sorted(value for attribute, value in words if attribute == "category")

    def make(category: str, values: Sequence[tuple[str, str]], text: str, kind: str) -> JudgedQuery:
        fits = columns["category"] == category
        for attribute, value in values:
            fits &= columns[attribute] == value
        return JudgedQuery(text, ProductFilter(categories=(category,)), np.sort(rows[fits]), kind=kind)

    queries = []
    for category in categories:
        for key, synonyms in words.items():
            if key[0] in ATTRIBUTES:
                queries.append(make(category, [key], synonyms[0], f"usual {key[0]}"))
                queries.append(make(category, [key], str(rng.choice(synonyms)), f"any {key[0]}"))
    for count, kind in ((2, "two"), (3, "three")):
        for _ in range(SENTENCES):
            category = str(rng.choice(categories))
            product = rng.choice(np.flatnonzero(columns["category"] == category))
            values = [(name, columns[name][product]) for name in ATTRIBUTES if (name, columns[name][product]) in words]
            if len(values) >= count:
                drawn = [values[i] for i in rng.permutation(len(values))[:count]]
                queries.append(make(category, drawn, " ".join(str(rng.choice(words[key])) for key in drawn), kind))
    return queries


def retitle(index: ProductIndex, encoder: ExportedEncoder, titles: dict[str, str | None], folder: Path) -> ProductIndex:
    """Return an index of the same products and pictures with other titles, written to a folder."""
    products = gather_products(index)
    ids = products.rows["product_id"].to_pylist()
    texts = [titles[one] for one in ids]
    column = products.rows.schema.get_field_index("title")
    rows = products.rows.set_column(column, products.rows.schema.field(column), [texts])
    vectors = dict(products.vectors)
    encoded = encoder.encode_texts([text or "" for text in texts])
    vectors["text_vector"] = np.where(np.array([text is None for text in texts])[:, None], np.nan, encoded)
    assert index.manifest.word_model is not None
    old = WordModel.from_bytes((index.folder / index.manifest.word_model).read_bytes())
    textures = products.arrays[TEXTURES]
    fitted = fit_word_model(ids, texts, vectors["image_vector"], textures, old.dictionary)
    arrays = {TEXTURES: textures} | ({} if fitted is None else {WORDS: fitted[1]})
    model = None if fitted is None else fitted[0].to_bytes()
    build_index(folder, index.encoder_version, IndexedProducts(rows, vectors, arrays), word_model=model)
    return open_index(folder)


def measure_shop(shop: Path, towers: Path, rates: Sequence[float], seed: int) -> dict[str, SearchReport]:
    encoder = open_encoder(towers)
    index = open_index(find_folder(config.load(), encoder.encoder_version), encoder.encoder_version)
    truth = pq.read_table(shop / "truth" / "products.parquet").to_pydict()
    ids = truth["product_id"]
    given = pq.read_table(shop / "products.parquet", columns=["product_id", "title"]).to_pydict()
    titles = dict(zip(given["product_id"], given["title"], strict=True))
    words = read_words(shop)
    cleaned = clean_titles([titles[one] for one in ids], truth, words)
    changed = np.mean([titles[one] != text for one, text in zip(ids, cleaned, strict=True)])
    print(f"{changed:.0%} of the titles had words that do not apply")
    reports = {}
    for rate in rates:
        stuffed = stuff_titles(cleaned, truth, words, rate, seed)
        with tempfile.TemporaryDirectory() as folder:
            retitled = retitle(index, encoder, dict(zip(ids, stuffed, strict=True)), Path(folder) / "index")
            queries = make_queries(truth, words, retitled.find_rows(ids), seed)
            reports[f"{rate:.0%} stuffed"] = report_search(retitled, encoder, queries, seed=seed)
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, required=True)
    parser.add_argument("--towers", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write the figures to SELECTION.md")
    given = parser.parse_args()
    reports = measure_shop(given.shop, given.towers, given.rates, given.seed)
    for name, report in reports.items():
        print(f"== {name}")
        console.print_tables(render_tables(report))
    if given.record:
        command = f"python -m tests.benchmarks.selection --seed {given.seed}"
        record_reports({name: json.loads(report.to_json()) for name, report in reports.items()}, command)


if __name__ == "__main__":
    main()
