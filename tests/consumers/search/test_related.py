"""Same and similar products: those of the group, then the nearest by weights that judged pairs give."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from typer.testing import CliRunner, Result

from consumers.cli import app
from consumers.search.related import list_related
from consumers.search.similarity_weights import SimilarityWeights, fit_weights, read_weights
from feature_repo import schema
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index.update import append_products
from feature_repo.offline import delta
from tests.consumers.search.conftest import SearchWorld

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def run(world: SearchWorld, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["similar", *arguments, "--store", str(world.settings.file)])


def write_groups(world: SearchWorld, groups: dict[str, str], day: int = 1) -> None:
    time = NOW.replace(day=day)
    rows = [
        {"product_id": product, "group_id": group, "event_timestamp": time, "created_timestamp": time}
        for product, group in groups.items()
    ]
    delta.append(world.settings.table(schema.GROUP_TABLE), pa.Table.from_pylist(rows, schema=schema.PRODUCT_GROUP))


def write_labels(world: SearchWorld, pairs: list[tuple[str, str, str]]) -> None:
    rows = [
        {
            "pair_id": f"{left}-{right}-{number}",
            "product_id_l": left,
            "product_id_r": right,
            "label": label,
            "inclusion_probability": 0.5,
            "created_timestamp": NOW,
        }
        for number, (left, right, label) in enumerate(pairs)
    ]
    delta.append(world.settings.table(schema.PAIR_LABEL_TABLE), pa.Table.from_pylist(rows, schema=schema.PAIR_LABEL))


@pytest.mark.parametrize("decisive", [0, 1])
def test_the_kind_of_vector_that_tells_like_from_different_gets_the_weight(decisive: int) -> None:
    rng = np.random.default_rng(0)
    is_like = rng.random(600) < 0.4
    cosines = rng.normal(size=(2, 600))
    toys = np.arange(600) < 300
    for kind, rows in ((decisive, toys), (1 - decisive, ~toys)):
        cosines[kind, rows] += 4 * is_like[rows]
    fitted = fit_weights(cosines, is_like, np.ones(600), ["toys>bricks"] * 300 + ["shoes"] * 300)
    for category, kind in (("toys>other", decisive), ("shoes", 1 - decisive)):
        assert (fitted.find(category) > 0.7) == (kind == 0)
    assert fitted.find("food") == fitted.find(None) == fitted.image


def test_few_labels_and_labels_that_say_nothing_leave_seven_to_three() -> None:
    few = fit_weights(np.ones((2, 50)), np.arange(50) < 25, np.ones(50), [None] * 50)
    assert few == SimilarityWeights(0.7, {}, 50)
    equal = fit_weights(np.ones((2, 300)), np.arange(300) < 100, np.ones(300), ["toys"] * 300)
    assert equal == SimilarityWeights(0.7, {"toys": 0.7}, 300)


def test_weights_come_from_the_imported_labels_of_known_products(world: SearchWorld) -> None:
    assert read_weights(world.settings, world.index) == SimilarityWeights()
    write_labels(world, [("p0", "p1", "similar"), ("p0", "p1", "unsure"), ("p0", "other", "different")])
    assert read_weights(world.settings, world.index).labels == 1


def test_the_group_comes_first_and_then_the_nearest_others(world: SearchWorld) -> None:
    write_groups(world, {"p0": "g1", "p2": "g1", "p3": "g2"})
    write_groups(world, {"p2": "g2", "p4": "g1"}, day=2)  # p2 has left the group, and p4 has come
    found = list_related(world.settings, world.index, ["p0"], SimilarityWeights(), top_k=3).to_pylist()
    assert [(row["relation"], row["rank"], row["other_id"]) for row in found[:2]] == [
        ("same", 1, "p4"),
        ("similar", 1, "p1"),
    ]
    assert len(found) == 4
    assert not {"p0", "p4"} & {row["other_id"] for row in found[1:]}
    assert [row["similarity"] for row in found[1:]] == sorted((row["similarity"] for row in found[1:]), reverse=True)
    # p1 has the picture of p0, and another title; without a picture the titles alone count.
    text = world.index.take_vectors("text_vector", np.arange(6))
    assert found[1]["similarity"] == pytest.approx(0.7 + 0.3 * text[0] @ text[1], abs=1e-5)
    assert found[2]["similarity"] == pytest.approx(text[0] @ text[int(found[2]["other_id"][1:])], abs=1e-5)


def test_products_that_have_left_the_shop_are_not_listed(world: SearchWorld) -> None:
    write_groups(world, {"p0": "g1", "p1": "g1"})
    append_products(world.index, None, gone=["p1"])
    found = list_related(world.settings, world.index, ["p0"], SimilarityWeights(), top_k=10)
    assert sorted(found["other_id"].to_pylist()) == ["p2", "p3", "p4", "p5"]
    with pytest.raises(NotFoundError, match="p1 has left the shop"):
        list_related(world.settings, world.index, ["p1"], SimilarityWeights(), top_k=10)


def test_the_command_prints_and_writes_without_formulas(world: SearchWorld) -> None:
    file = world.settings.file.parent / "similar.csv"
    result = run(world, "p0", "p2", "p0", "--top-k", "9", "--output", str(file))
    assert result.exit_code == 0
    assert "weight of the picture 0.7, from 0 judged pairs" in result.stdout
    rows = pyarrow.csv.read_csv(file).to_pylist()
    assert [row["product_id"] for row in rows] == ["p0"] * 5 + ["p2"] * 5
    assert "'=cmd()" in {row["title"] for row in rows}


@pytest.mark.parametrize("arguments", [["unknown"], ["p0", "--output", "similar.txt"], ["p0", "--top-k", "0"], []])
def test_what_cannot_be_answered_is_refused_and_nothing_is_written(world: SearchWorld, arguments: list[str]) -> None:
    before = sorted(world.settings.file.parent.rglob("*"))
    assert run(world, *arguments).exit_code != 0
    assert sorted(world.settings.file.parent.rglob("*")) == before


def test_an_index_without_pictures_and_titles_is_refused(world: SearchWorld) -> None:
    world.write_index(["红色", "蓝色"], text_vector="fused_vector")
    with pytest.raises(InvalidInputError, match="image_vector, text_vector"):
        list_related(world.settings, world.index, ["p0"], SimilarityWeights(), top_k=1)
