"""Pictures of a generated shop with sentences that state category, colour and pattern, to train and judge models on.

    OUTPUT/train/metadata.jsonl     pictures and sentences to train on
    OUTPUT/held_out/metadata.jsonl  those of held-out combinations of category, colour and pattern

A line has `text` in the language asked for, `original_text`, which says the same in English, `attributes` and `group`
(the design). Combinations are held out whole, so that a model has to compose a sentence that it has never read.
"""

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_repo.errors import InvalidInputError, NotFoundError, UsageError
from feature_repo.files.atomic_write import replace_atomically, require_new_folder
from feature_repo.offline import input_files, validation
from feature_repo.schema import PRODUCT_ID
from producers.datasets.shop.vocabulary import CATEGORIES, COLOURS, LANGUAGES, PATTERNS, Category, Level

ATTRIBUTES = ("category", "colour", "pattern")
TEMPLATES = {
    "en": (
        "{colour} {category}, {pattern}",
        "{pattern} {category} in {colour}",
        "a {colour} {category} with {pattern} pattern",
        "{category}, {colour}, {pattern}",
    ),
    "zh": (
        "{colour}{category}，{pattern}",
        "{pattern}{category}，{colour}",
        "一款{colour}的{category}，{pattern}图案",
        "{category} {colour} {pattern}",
    ),
}
"""The sentence of one number says the same in each language."""
HELD_OUT, TRAIN = "held_out", "train"
HELD_OUT_PERCENT = 12


@dataclass(frozen=True)
class ShopPairsSummary:
    """What `write_shop_pairs` wrote."""

    rows: Mapping[str, int]
    """Pictures by part: train and held_out."""
    combinations: Mapping[str, int]
    """Different combinations of the attributes by part."""
    left_out: int
    """Products without a picture, or whose picture does not show its attributes: blurred, grey or tiny."""

    def __str__(self) -> str:
        """Return one line."""
        parts = [
            f"{self.rows[part]:,} {part} of {self.combinations[part]:,} combinations" for part in (TRAIN, HELD_OUT)
        ]
        return f"{', '.join(parts)}; {self.left_out:,} products without a picture that shows them left out"


def describe_product(attributes: Mapping[str, str], language: str, rng: np.random.Generator) -> str:
    """Return a sentence that states the attributes, in words and an order drawn at random.

    Args:
        attributes: category, as the names of vocabulary.CATEGORIES, colour and pattern.
        language: "en" or "zh". The same generator gives the same sentence in the other language.
        rng: the generator; it is advanced by four numbers.
    """
    levels: dict[str, tuple[Category | Level, ...]] = {"category": CATEGORIES, "colour": COLOURS, "pattern": PATTERNS}
    words = {}
    for name in ATTRIBUTES:
        (level,) = (level for level in levels[name] if level.name == attributes[name])
        choices = level.words(language)
        words[name] = choices[int(rng.integers(len(choices)))]
    templates = TEMPLATES[language]
    return templates[int(rng.integers(len(templates)))].format(**words)


def is_held_out(attributes: Mapping[str, str]) -> bool:
    """Return whether a combination of the attributes is held out; HELD_OUT_PERCENT of all combinations are."""
    text = "|".join(attributes[name] for name in ATTRIBUTES)
    return zlib.crc32(text.encode()) % 100 < HELD_OUT_PERCENT


def write_shop_pairs(
    shop: Path, output: Path, *, language: str = "en", held_out: int = 500, seed: int = 0
) -> ShopPairsSummary:
    """Write the pictures and sentences of a shop of `produce shop` as two image folders.

    Args:
        shop: the shop's folder, with its ground truth.
        output: a new folder. Pictures are hard links where the file system allows it, else copies.
        language: of `text`: "en" or "zh".
        held_out: number of held-out pictures, drawn at random; all if there are fewer.
        seed: of the words of the sentences and of the draw.

    Raises:
        ConflictError: `output` has content.
        NotFoundError: the shop has no ground truth.
        InvalidInputError: the ground truth cannot be read, or has values that no generated shop has.
        UsageError: the language is another one.
    """
    if language not in LANGUAGES:
        raise UsageError(f"--language is `{language}`; expected {' or '.join(LANGUAGES)}")
    require_new_folder(output)
    truth = shop / "truth" / "products.parquet"
    if not truth.is_file():
        raise NotFoundError(f"{truth}: there is no such file; expected the folder of `produce shop`")
    names = {category.path(language): category.name for category in CATEGORIES for language in LANGUAGES}
    columns = (PRODUCT_ID, "design_id", "image_quality", *ATTRIBUTES)
    table = input_files.read_table(truth)
    validation.require_columns(table, columns, truth)
    products = table.select(columns).to_pylist()
    _check_values(products, names, truth)
    parts: dict[str, list[dict[str, object]]] = {TRAIN: [], HELD_OUT: []}
    combinations: dict[str, set[tuple[str, ...]]] = {TRAIN: set(), HELD_OUT: set()}
    for number, product in enumerate(products):
        if product["image_quality"] != "good":
            continue
        attributes = {name: product[name] for name in ATTRIBUTES} | {"category": names[product["category"]]}
        part = HELD_OUT if is_held_out(attributes) else TRAIN
        text, original = (
            describe_product(attributes, one, np.random.default_rng([seed, number])) for one in (language, "en")
        )
        combinations[part].add(tuple(attributes[name] for name in ATTRIBUTES))
        parts[part].append(
            {
                "file_name": f"{product['product_id']}.jpg",
                "text": text,
                "original_text": original,
                "attributes": attributes,
                "group": product["design_id"],
            }
        )
    usable = sum(map(len, parts.values()))
    chosen = np.random.default_rng([seed, 1]).permutation(len(parts[HELD_OUT]))[:held_out]
    parts[HELD_OUT] = [parts[HELD_OUT][row] for row in sorted(chosen)]
    with replace_atomically(output) as unfinished:
        for part, rows in parts.items():
            (unfinished / part).mkdir(parents=True)
            for row in rows:
                _link_or_copy(shop / "images" / str(row["file_name"]), unfinished / part / str(row["file_name"]))
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (unfinished / part / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return ShopPairsSummary(
        {part: len(rows) for part, rows in parts.items()},
        {part: len(found) for part, found in combinations.items()},
        len(products) - usable,
    )


def _check_values(products: Sequence[Mapping[str, str]], names: Mapping[str, str], truth: Path) -> None:
    """Raise InvalidInputError for a product whose attributes have no words. `names` has the names of categories."""
    known = {"category": set(names), "colour": {one.name for one in COLOURS}, "pattern": {one.name for one in PATTERNS}}
    for product in products:
        for name, values in known.items():
            if product[name] not in values:
                raise InvalidInputError(
                    f"{truth}: {name} of {product[PRODUCT_ID]} is `{product[name]}`, which has no words; expected the "
                    "folder of `produce shop`, of this version"
                )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
