"""Pictures of a shop with sentences that state category, colour and pattern."""

import json
from itertools import product as combine
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError, UsageError
from producers.datasets.shop.vocabulary import CATEGORIES, COLOURS, PATTERNS
from producers.datasets.shop.write import make_shop
from producers.text_to_image.judging.pictures import read_attributed_pictures
from producers.text_to_image.shop_pairs import describe_product, is_held_out, write_shop_pairs

LEVELS = {"category": CATEGORIES, "colour": COLOURS, "pattern": PATTERNS}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    make_shop(folder, products=120, users=2, days=2, seed=0, language="zh", impressions_per_user=2)
    return folder


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_sentence_states_exactly_its_own_attributes(shop: Path, tmp_path: Path, language: str) -> None:
    write_shop_pairs(shop, tmp_path / "pairs", language=language)
    rows = read_rows(tmp_path / "pairs" / "train") + read_rows(tmp_path / "pairs" / "held_out")
    for row in rows:
        for name, levels in LEVELS.items():
            (level,) = (level for level in levels if level.name == row["attributes"][name])
            assert any(word in row["text"] for word in level.words(language)), row
            assert any(word in row["original_text"] for word in level.words("en")), row


def test_attributes_are_those_of_the_ground_truth_and_no_combination_is_in_both_parts(
    shop: Path, tmp_path: Path
) -> None:
    summary = write_shop_pairs(shop, tmp_path / "pairs")
    truth = {row["product_id"]: row for row in pq.read_table(shop / "truth" / "products.parquet").to_pylist()}
    combinations = {}
    for part in ("train", "held_out"):
        rows = read_rows(tmp_path / "pairs" / part)
        assert len(rows) == summary.rows[part]
        for row in rows:
            true = truth[row["file_name"].removesuffix(".jpg")]
            assert row["attributes"]["colour"] == true["colour"]
            assert row["attributes"]["pattern"] == true["pattern"]
            assert true["image_quality"] == "good"
            source = shop / "images" / row["file_name"]
            assert (tmp_path / "pairs" / part / row["file_name"]).read_bytes() == source.read_bytes()
        combinations[part] = {tuple(sorted(row["attributes"].items())) for row in rows}
        assert len(combinations[part]) == summary.combinations[part]
        assert len(read_attributed_pictures(tmp_path / "pairs" / part)) == len(rows)
    assert combinations["train"].isdisjoint(combinations["held_out"])
    assert sum(summary.rows.values()) + summary.left_out == len(truth)


def test_held_out_combinations_are_about_an_eighth_and_leave_every_value_to_learn_from() -> None:
    all_ = [
        {"category": a.name, "colour": b.name, "pattern": c.name} for a, b, c in combine(CATEGORIES, COLOURS, PATTERNS)
    ]
    held_out = [attributes for attributes in all_ if is_held_out(attributes)]
    assert 0.08 < len(held_out) / len(all_) < 0.16
    for name, levels in LEVELS.items():
        trained = {attributes[name] for attributes in all_ if not is_held_out(attributes)}
        assert trained == {level.name for level in levels}


def test_the_words_vary_and_are_the_same_in_both_languages() -> None:
    attributes = {"category": "dress", "colour": "pink", "pattern": "dots"}
    pairs = {
        tuple(describe_product(attributes, language, np.random.default_rng(seed)) for language in ("en", "zh"))
        for seed in range(2000)
    }
    english = {en for en, _ in pairs}
    assert len(english) == len(pairs) == 4 * 3**3


def test_fewer_held_out_pictures_are_a_part_of_more(shop: Path, tmp_path: Path) -> None:
    write_shop_pairs(shop, tmp_path / "two", held_out=2)
    write_shop_pairs(shop, tmp_path / "all")
    few, many = ({row["file_name"] for row in read_rows(tmp_path / name / "held_out")} for name in ("two", "all"))
    assert len(few) == 2
    assert few < many


def test_bad_arguments_are_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--language is `fr`"):
        write_shop_pairs(shop, tmp_path / "pairs", language="fr")
    with pytest.raises(ConflictError, match="exists already"):
        write_shop_pairs(shop, shop)
    with pytest.raises(NotFoundError, match="expected the folder of `produce shop`"):
        write_shop_pairs(tmp_path, tmp_path / "pairs")


def test_a_ground_truth_that_is_damaged_or_of_another_version_is_refused(shop: Path, tmp_path: Path) -> None:
    truth = tmp_path / "shop" / "truth" / "products.parquet"
    truth.parent.mkdir(parents=True)
    table = pq.read_table(shop / "truth" / "products.parquet")
    other = table.set_column(table.schema.get_field_index("colour"), "colour", [["mauve"] * len(table)])
    cases = {"pattern": table.drop_columns(["pattern"]), "is `mauve`, which has no words": other}
    for message, changed in cases.items():
        pq.write_table(changed, truth)
        with pytest.raises(InvalidInputError, match=message):
            write_shop_pairs(tmp_path / "shop", tmp_path / "pairs")
    truth.write_bytes(b"PAR1")
    with pytest.raises(InvalidInputError, match=r"products\.parquet"):
        write_shop_pairs(tmp_path / "shop", tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
