"""Products for a sentence: ranked, filtered, explained, collapsed, saved and written."""

import csv
import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from consumers.cli import app
from consumers.search.calibration import SearchCalibration
from consumers.search.contact_sheet import read_pictures
from consumers.search.selection import search_products
from feature_repo import schema
from feature_repo.errors import EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.index import saved_searches
from feature_repo.index.filters import ProductFilter
from feature_repo.offline import delta, production
from producers import maintenance
from producers.encoders import load
from tests.consumers.search.conftest import TITLES, SearchWorld

ANY = ProductFilter()
KEYWORDS = {"keywords": 1.0}


def select(world: SearchWorld, text: str, where: ProductFilter = ANY, **options: object) -> list[dict]:
    given = {"top_k": 6, "calibration": calibrate(world)} | options
    return search_products(world.index, world.encoder, text, where=where, **given).products.to_pylist()


def calibrate(world: SearchWorld, cutoff: float = -100.0, **cutoffs: float) -> SearchCalibration:
    """Return weights that rank by keywords alone."""
    return SearchCalibration(world.encoder.encoder_version, KEYWORDS, 0.0, cutoff, cutoffs)


def run(world: SearchWorld, *arguments: str) -> Result:
    options = ["--towers", str(world.towers), "--store", str(world.settings.file)]
    return CliRunner().invoke(app, ["search", *arguments, *options])


def test_the_exported_tower_gives_the_vectors_of_the_encoder(world: SearchWorld) -> None:
    encoder = load(str(world.towers.parent / "encoder"), device="cpu")
    texts = [*TITLES, "红" * 500, "unknown words"]
    assert np.abs(world.encoder.encode_texts(texts) - encoder.encode_texts(texts)).max() < 1e-5
    assert world.encoder.encoder_version == encoder.version


def test_ranks_by_the_words_of_titles_and_says_so(world: SearchWorld) -> None:
    found = select(world, "红色 连衣裙")
    assert found[0]["product_id"] == "p0"
    assert found[0]["reasons"] == "title says 红色, 连衣裙"
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert all(earlier["score"] >= later["score"] for earlier, later in pairwise(found))


def test_keeps_to_the_filter(world: SearchWorld) -> None:
    found = select(world, "红色", ProductFilter(categories=("积木",), price_max=35))
    assert [row["product_id"] for row in found] == ["p2"]


def test_ends_at_the_cut_off_of_the_category(world: SearchWorld) -> None:
    result = search_products(
        world.index,
        world.encoder,
        "红色",
        where=ANY,
        top_k=6,
        calibration=calibrate(world, 0.0, **{"玩具>积木": float("inf")}),
    )
    assert {row["product_id"] for row in result.products.to_pylist()} == {"p0", "p5"}
    assert result.below_cutoff == 4
    assert result.products["probability"].to_pylist() == pytest.approx(
        (1 / (1 + np.exp(-np.array(result.products["score"])))).tolist()
    )


def test_collapses_near_duplicates_into_the_best_of_them(world: SearchWorld) -> None:
    found = {row["product_id"]: row["duplicates"] for row in select(world, "红色 连衣裙", collapse=True)}
    assert found["p0"].split()[0] == "p1"
    assert "p1" not in found


def test_collapsing_needs_image_or_text_vectors(world: SearchWorld) -> None:
    world.write_index([*TITLES], text_vector="fused_vector")
    assert select(world, "红色")
    with pytest.raises(InvalidInputError, match="the index has fused_vector"):
        select(world, "红色", collapse=True)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "empty"),
        ("  \n ", {}, "empty"),
        ("红" * 10_000, {}, "10,000 characters"),
        ("مرحبا", {}, "knows a word"),
        ("红色", {"top_k": 0}, "top_k"),
        ("红色", {"top_k": 1_000}, "6 products"),
    ],
)
def test_a_sentence_or_number_that_cannot_be_used_is_one_clear_line(
    world: SearchWorld, text: str, options: dict, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        select(world, text, **options)
    assert "\n" not in str(error.value)


def test_a_filter_that_nothing_passes_names_the_categories(world: SearchWorld) -> None:
    with pytest.raises(NotFoundError, match="服装>裙子, 玩具>积木"):
        select(world, "红色", ProductFilter(categories=("鞋",)))
    with pytest.raises(NotFoundError, match="no product passes"):
        select(world, "红色", ProductFilter(price_min=1e6))


def test_refuses_an_index_of_another_version(world: SearchWorld) -> None:
    world.write_index([*TITLES], version="other@1")
    with pytest.raises(EncoderMismatchError, match="other@1"):
        select(world, "红色", calibration=None)


def test_a_csv_has_no_formula(world: SearchWorld, tmp_path: Path) -> None:
    assert run(world, "红色", "--output", str(tmp_path / "found.csv")).exit_code == 0
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(TITLES)
    assert {row["title"] for row in rows} == {*TITLES, "'=cmd()"} - {"=cmd()"}


def test_a_contact_sheet_is_one_escaped_page_with_its_pictures(world: SearchWorld, tmp_path: Path) -> None:
    assert run(world, "红色 <b>", "--output", str(tmp_path / "found.html")).exit_code == 0
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<b>红色" not in page
    assert html.escape(TITLES[5]) in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert page.count("no picture") == len(TITLES) - 1
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_a_picture_of_the_catalogue_is_the_one_with_the_hash_of_the_index(world: SearchWorld) -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    for first, second in (("a", "b"), ("b", "a")):  # the corrections of each product are in the other commit
        rows = [
            {"product_id": "x", "image_hash": first.encode() * 16, "image_bytes": first.encode()},
            {"product_id": "y", "image_hash": second.encode() * 16, "image_bytes": second.encode()},
        ]
        times = {"event_timestamp": time, "created_timestamp": time + timedelta(days=first == "b")}
        catalogue = pa.Table.from_pylist([row | times for row in rows], schema=schema.CATALOGUE)
        delta.append(world.settings.table(schema.CATALOGUE_TABLE), catalogue)
    hashes = pa.array([b"b" * 16] * 2)
    products = pa.table({"product_id": ["x", "y"], "image": pa.nulls(2, pa.string()), "image_hash": hashes})
    assert read_pictures(world.settings, products) == [b"b", b"b"]


def test_a_saved_search_says_what_came_and_went(world: SearchWorld) -> None:
    assert "saved as red" in run(world, "红色", "--category", "裙子", "--save", "red").stdout
    world.write_index(["红色连衣裙", "蓝色连衣裙", "红色积木", "蓝色积木", None, "白色", "红色 新"])
    again = run(world, "--again", "red")
    assert "1 came, 0 went" in again.stdout
    assert "came: p6" in again.stdout
    assert "0 came, 0 went" in run(world, "--again", "red").stdout


def test_a_saved_search_says_that_the_encoder_changed(world: SearchWorld) -> None:
    run(world, "红色", "--save", "red")
    offline = world.settings.offline
    search = saved_searches.read_search(offline, "red")
    saved_searches.write_search(offline, replace(search, encoder_version="former@1"))
    assert "the earlier run was with the encoder former@1" in run(world, "--again", "red").stdout
    assert "former@1" not in run(world, "--again", "red").stdout


def test_a_search_with_another_encoder_than_the_one_in_production_says_so(world: SearchWorld) -> None:
    assert not run(world, "红色").stderr
    production.record_first_version(world.settings.offline, "next@2", datetime(2026, 3, 1, tzinfo=UTC))
    result = run(world, "红色")
    assert result.exit_code == 0
    assert (
        f"next@2 is in production; {world.towers} and its index are of {world.index.encoder_version}" in result.stderr
    )


def test_forgetting_a_product_reaches_saved_searches(world: SearchWorld) -> None:
    run(world, "红色", "--save", "red")
    assert maintenance.forget(world.settings, products=["p0"], users=[]).offline == {"index": 1, "searches": 1}
    assert "p0" not in saved_searches.read_search(world.settings.offline, "red").product_ids


@pytest.mark.parametrize(
    "arguments",
    [
        ["红色", "--output", "found.txt"],
        ["红色", "--save", "../name"],
        ["红色", "--tag", "child_age"],
        ["红色", "--again", "red"],
        ["--again", "unknown"],
        [],
    ],
)
def test_options_that_do_not_fit_write_nothing(world: SearchWorld, arguments: list[str], tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    result = run(world, *arguments)
    assert result.exit_code != 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
