"""Samples have the probabilities that they state, figures are unbiased, and falls are named."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from typer.testing import CliRunner

from consumers import cli
from consumers.labels import report
from consumers.labels.changes import find_worse
from consumers.labels.estimates import estimate_share
from consumers.labels.files import read_judged, write_sample
from consumers.labels.frame import read_frame
from consumers.labels.sample import SamplingRates, draw_pairs
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError
from feature_repo.offline import delta
from feature_repo.pairs.labels import read_judgements
from producers import maintenance
from tests.consumers.labels.world import JudgedWorld, make_world
from tests.feature_repo.features.world import deployment

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RATES = SamplingRates(anchors=40, depth=2, tail=0.3, repeats=0.1)
PRODUCTS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def world() -> JudgedWorld:
    return make_world()


def draw(world: JudgedWorld, seed: int = 0, week: str = "w1") -> pa.Table:
    return draw_pairs(world.frame, RATES, week=week, seed=seed)


def test_pairs_are_drawn_as_often_as_their_inclusion_probability_says(world: JudgedWorld) -> None:
    draws, expected, sums = 150, len(world.frame.anchor), []
    for seed in range(draws):
        sample = draw(world, seed)
        first = sample.filter(pa.compute.invert(sample["is_repeat"]))
        sums.append((1 / first["inclusion_probability"].to_numpy()).sum())
    error = np.std(sums) / np.sqrt(draws)
    assert abs(np.mean(sums) - expected) < 4 * error


def test_figures_from_a_sample_are_those_of_all_pairs_within_their_intervals(world: JudgedWorld) -> None:
    frame = world.frame
    truth = world.is_same[frame.in_one_group].mean(), frame.in_one_group[world.is_same].mean()
    covered = np.zeros((40, 2), bool)
    for seed in range(40):
        score = report.build_report(world.judge(draw(world, seed)), top_k=2).weeks[0].categories[0]
        for i, share in enumerate((score.precision, score.recall)):
            covered[seed, i] = share.low <= truth[i] <= share.high
    assert (covered.mean(axis=0) > 0.85).all()


def test_one_seed_draws_the_same_anchors_every_week_and_repeats_are_hidden(world: JudgedWorld, tmp_path: Path) -> None:
    first, second = draw(world), draw(world, week="w2")
    anchors = [{row["product_id_l"] for row in one.to_pylist() if not row["is_repeat"]} for one in (first, second)]
    assert anchors[0] == anchors[1]
    assert not set(first["pair_id"].to_pylist()) & set(second["pair_id"].to_pylist())
    judged = world.judge(first)
    write_sample(judged, world.frame, tmp_path / "sample.csv")
    assert "repeat" not in (tmp_path / "sample.csv").read_text()
    read = read_judged(tmp_path / "sample.csv").sort_by("pair_id")
    assert read["is_repeat"].to_pylist() == judged.sort_by("pair_id")["is_repeat"].to_pylist()
    assert read["inclusion_probability"].to_pylist() == judged.sort_by("pair_id")["inclusion_probability"].to_pylist()
    assert len(read_judgements(tmp_path / "sample.csv")) == len(judged)  # `produce groups --pairs` reads it too


def test_label_studio_gets_tasks_and_gives_annotations(world: JudgedWorld, tmp_path: Path) -> None:
    judged = world.judge(draw(world))
    write_sample(judged, world.frame, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    for task in tasks[5:]:  # the first five stay without an answer
        result = [{"type": "choices", "from_name": "label", "value": {"choices": [task["data"].pop("label")]}}]
        task["annotations"] = [{"completed_by": 7, "created_at": "2026-03-01T10:00:00Z", "result": result}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    read = read_judged(tmp_path / "export.json")
    assert len(read) == len(judged) - 5
    assert set(read["labeller"].to_pylist()) == {"7"}
    expected = dict(zip(judged["pair_id"].to_pylist(), judged["label"].to_pylist(), strict=True))
    assert all(expected[row["pair_id"]] == row["label"] for row in read.to_pylist())
    (tmp_path / "export.json").write_text('{"a": 1}')
    with pytest.raises(InvalidInputError, match="not Label Studio's JSON"):
        read_judged(tmp_path / "export.json")


def test_a_repeat_is_known_as_one_in_a_file_without_its_first_pair(world: JudgedWorld, tmp_path: Path) -> None:
    judged = world.judge(draw(world))
    repeats = judged.filter(judged["is_repeat"])
    for part in (repeats, judged.filter(pa.compute.invert(judged["is_repeat"]))):
        write_sample(part, world.frame, tmp_path / "part.csv")
        assert read_judged(tmp_path / "part.csv")["is_repeat"].to_pylist() == part["is_repeat"].to_pylist()


def test_unjudged_and_unsure_pairs_are_not_wrong(world: JudgedWorld) -> None:
    judged = world.judge(draw(world))
    labels = np.array(judged["label"].to_pylist(), object)
    labels[::3] = "unsure"
    unsure = judged.set_column(judged.column_names.index("label"), "label", pa.array(labels.tolist()))
    without = judged.filter(pa.array(labels != "unsure"))
    left, right = (report.build_report(rows, top_k=2).weeks[0] for rows in (unsure, without))
    assert left.categories == right.categories
    assert left.unsure == len(judged) - len(without)


def test_kappa_is_one_if_repeats_agree_and_near_zero_if_they_are_guessed(world: JudgedWorld) -> None:
    judged = world.judge(draw_pairs(world.frame, replace(RATES, repeats=1.0), week="w1", seed=0))
    assert report.build_report(judged, top_k=2).weeks[0].kappa == 1
    rng = np.random.default_rng(0)
    guessed = pa.array(rng.choice(["same", "different"], len(judged)).tolist())
    rows = judged.set_column(judged.column_names.index("label"), "label", guessed)
    assert abs(report.build_report(rows, top_k=2).weeks[0].kappa) < 0.2


def test_a_share_without_judgements_is_nan_and_equal_weights_give_the_plain_mean() -> None:
    assert np.isnan(estimate_share(np.empty(0), np.empty(0), np.empty(0, np.int64)).value)
    share = estimate_share(np.array([1.0, 0.0, 1.0, 1.0]), np.full(4, 5.0), np.arange(4))
    assert share.value == 0.75
    assert 0 < share.low < 0.75 < share.high < 1


def week_of(rng: np.random.Generator, precision: dict[str, float]) -> dict[str, tuple[np.ndarray, ...]]:
    return {
        name: ((rng.random(200) < share).astype(float), np.ones(200), np.arange(200))
        for name, share in precision.items()
    }


def test_a_category_that_fell_is_named_and_no_other() -> None:
    rng = np.random.default_rng(0)
    before = week_of(rng, dict.fromkeys("abcde", 0.95))
    after = dict(before) | week_of(rng, {"c": 0.8})
    assert list(find_worse(before, after)) == ["c"]
    assert find_worse(before, before) == {}
    assert find_worse(after, before) == {}  # it got better


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A store with four products and their scored pairs; two of the products are in one group."""
    store = deployment(tmp_path)

    def append(table: str, shape: pa.Schema, rows: list[dict]) -> None:
        times = {"event_timestamp": NOW, "created_timestamp": NOW}
        delta.append(store.table(table), pa.Table.from_pylist([times | row for row in rows], schema=shape))

    catalogue = [{"product_id": one, "category": "toys>blocks", "title": f"=title {one}"} for one in PRODUCTS]
    append(schema.CATALOGUE_TABLE, schema.CATALOGUE, catalogue)
    groups = [{"product_id": one, "group_id": "g1" if one in "ab" else f"g-{one}"} for one in PRODUCTS]
    append(schema.GROUP_TABLE, schema.PRODUCT_GROUP, groups)
    pairs = [("a", "b", 0.9), ("a", "c", 0.4), ("b", "c", 0.2), ("c", "d", 0.6)]
    rows = [
        {"product_id_l": a, "product_id_r": b, "pair_probability": p, "probability": p, "verifier_version": "v"}
        for a, b, p in pairs
    ]
    append(schema.PAIR_TABLE, schema.PRODUCT_PAIR, rows)
    return store


def consume(store: Settings, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["labels", *arguments, "--store", str(store.file)])
    return result.exit_code, result.output + str(result.exception or "")


def test_a_sample_is_judged_imported_and_scored_by_commands(store: Settings, tmp_path: Path) -> None:
    frame = read_frame(store, NOW)
    assert frame.rank.tolist() == [1, 2, 1, 2, 1, 2, 3, 1]
    file = tmp_path / "sample.csv"
    assert consume(store, "sample", "--output", str(file), "--repeats", "0", "--week", "w1")[0] == 0
    text = file.read_text()
    assert "'=title a" in text  # no formula for a spreadsheet
    table = pyarrow.csv.read_csv(file)
    same = [{a, b} == {"a", "b"} for a, b in zip(*(table[f"product_id_{x}"].to_pylist() for x in "lr"), strict=True)]
    answers = pa.array(["same" if one else "different" for one in same])
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("label"), "label", answers), file)
    assert "8 judged pairs, 8 of them new" in consume(store, "import", str(file))[1]
    assert "8 judged pairs, 0 of them new" in consume(store, "import", str(file))[1]
    code, output = consume(store, "score", "--json", str(tmp_path / "score.json"))
    assert code == 0
    assert "toys: precision 1.000" in output
    assert "mAP 1.000" in output
    assert json.loads((tmp_path / "score.json").read_text())["weeks"][0]["judged"] == 8
    assert maintenance.forget(store, products=["a"], users=[]).offline[schema.PAIR_LABEL_TABLE] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("a,", "zz,"), "zz is not in the catalogue"),
        (("same", "equal"), "label is 'equal'"),
        (("week", "weak"), "no column week"),
        (("true", "maybe"), "cannot be read"),
    ],
)
def test_bad_input_is_refused_with_one_line_and_nothing_is_written(
    store: Settings, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = tmp_path / "judged.csv"
    lines = [
        "pair_id,product_id_l,product_id_r,label,labeller,labelled_at,inclusion_probability,"
        "week,category,probability,rank,in_one_group",
        "1,a,b,same,,,0.5,w1,toys,0.9,1,true",
    ]
    file.write_text("\n".join(lines).replace(*change) + "\n")
    code, output = consume(store, "import", str(file))
    assert code != 0
    assert message in output
    assert not delta.exists(store.table(schema.PAIR_LABEL_TABLE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("w1", ""), "row 1: no week"),
        (("toys", ""), "row 1: no category"),
        ((",1,true", f",{10**30},true"), "row 1: rank is 1000"),
        (("same,,", "same,,0001-01-01T00:00:00+23:00"), "row 1: labelled_at is 0001"),
        (("a,b", "a,a"), "row 1: a and a are not two"),
        (("same,,", "same,,2026-03-01T12:00:00"), "row 1: labelled_at has no time zone"),
        (("same", ""), "none of 1 rows has a label"),
    ],
)
def test_values_that_a_report_could_not_use_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = tmp_path / "judged.csv"
    known = "labeller,labelled_at,inclusion_probability,week,category,rank,in_one_group"
    header = f"pair_id,product_id_l,product_id_r,label,{known}"
    file.write_text(f"{header}\n" + "1,a,b,same,,,0.5,w1,toys,1,true".replace(*change) + "\n")
    with pytest.raises(InvalidInputError, match=message):
        read_judged(file)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text("[" * 100_000)
    with pytest.raises(InvalidInputError, match="not Label Studio's JSON"):
        read_judged(file)


def test_two_answers_for_one_pair_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "judged.csv"
    known = "labeller,labelled_at,inclusion_probability,week,category,rank,in_one_group"
    header = f"pair_id,product_id_l,product_id_r,label,{known}"
    rows = ["1,a,b,same,,,0.5,w1,toys,1,true", "1,a,b,different,,,0.5,w1,toys,1,true"]
    file.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(InvalidInputError, match="pair 1 has two answers, same and different"):
        read_judged(file)


def test_a_sample_of_a_store_without_pairs_is_refused_with_one_line(tmp_path: Path) -> None:
    store = deployment(tmp_path)
    delta.append(store.table(schema.PAIR_TABLE), schema.PRODUCT_PAIR.empty_table())
    code, output = consume(store, "sample", "--output", str(tmp_path / "sample.csv"))
    assert code == 1
    assert "there is nothing to judge" in output
