import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg, stats

from feature_repo.errors import InvalidInputError
from producers.text_to_image.judging.figures import (
    compute_chance,
    compute_diversity,
    compute_frechet_distance,
    measure_ratio,
    measure_share,
)
from producers.text_to_image.judging.judge import RealPictures, judge_pictures, prepare_real_pictures
from producers.text_to_image.judging.pictures import read_attributed_pictures, read_size
from tests.producers.text_to_image.drawn_pictures import COLOURS, ColourEncoder, list_pairs, write_pictures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("colour", "shape")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealPictures:
    folder = write_pictures(tmp_path_factory.mktemp("real"), list_pairs(600, seed=1), seed=1)
    pictures = read_attributed_pictures(folder)
    return prepare_real_pictures(pictures, NAMES, read_size(pictures), ColourEncoder())


def judge(real: RealPictures, folder: Path) -> dict[str, float]:
    run = judge_pictures(read_attributed_pictures(folder), real, ColourEncoder(), NOW)
    return {name: measure.value for name, measure in run.measures.items()}


def test_pictures_that_show_what_was_asked_score_like_real_ones(real: RealPictures, tmp_path: Path) -> None:
    figures = judge(real, write_pictures(tmp_path, list_pairs(120, seed=2), seed=2))
    assert figures["colour"] > 0.97
    assert figures["shape"] > 0.9
    assert figures["shape real"] > 0.9
    assert figures["Frechet distance"] < 3 * figures["Frechet distance real"] + 0.05


def test_pictures_of_other_sentences_score_as_chance(real: RealPictures, tmp_path: Path) -> None:
    shown = list_pairs(300, seed=3)
    asked = [shown[row] for row in np.random.default_rng(0).permutation(300)]
    figures = judge(real, write_pictures(tmp_path, shown, asked, seed=3))
    for name in NAMES:
        assert figures[name] == pytest.approx(figures[f"{name} chance"], abs=0.1)


def test_each_attribute_is_judged_alone(real: RealPictures, tmp_path: Path) -> None:
    shown = list_pairs(120, seed=4)
    asked = [(colour, "disc" if shape == "square" else "square") for colour, shape in shown]
    figures = judge(real, write_pictures(tmp_path, shown, asked, seed=4))
    assert figures["colour"] > 0.97
    assert figures["shape"] < 0.1
    assert figures["colour relative"] == pytest.approx(figures["colour"] / figures["colour real"])


def test_pictures_of_one_colour_are_far_from_real_ones(real: RealPictures, tmp_path: Path) -> None:
    alike = judge(real, write_pictures(tmp_path / "alike", list_pairs(120, seed=5), seed=5))
    one = judge(real, write_pictures(tmp_path / "one", [("red", "disc")] * 120, list_pairs(120, seed=5), seed=5))
    assert one["Frechet distance"] > 5 * alike["Frechet distance"]


def test_finds_the_sentence_of_a_picture_by_the_encoder(real: RealPictures, tmp_path: Path) -> None:
    shown = [(colour, "disc") for colour in COLOURS] * 10
    right = judge(real, write_pictures(tmp_path / "right", shown, seed=6))
    wrong = judge(real, write_pictures(tmp_path / "wrong", shown, shown[1:] + shown[:1], seed=6))
    assert right["R@1"] == 1
    assert wrong["R@1"] == 0
    assert wrong["R@5"] == 1  # there are three sentences


def test_sentences_are_found_in_the_language_of_the_encoder(real: RealPictures, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, [(colour, "disc") for colour in COLOURS], seed=6)
    file = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [line | {"text": "sentence in another language", "en": line["text"]} for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_attributed_pictures(folder).texts == ["sentence in another language"] * 3
    run = judge_pictures(read_attributed_pictures(folder, "en"), real, ColourEncoder(), NOW)
    assert run.measures["R@1"].value == 1


def test_counts_pictures_that_cannot_be_used(real: RealPictures, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, list_pairs(20, seed=7))
    (folder / "3.png").write_bytes(b"no picture")
    run = judge_pictures(read_attributed_pictures(folder), real, ColourEncoder(), NOW)
    assert run.documents == 19
    assert any("1 generated pictures left out" in note for note in run.notes)


def test_refuses_a_value_that_no_real_picture_shows(real: RealPictures, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, [("red", "disc")])
    file = folder / "metadata.jsonl"
    file.write_text(file.read_text().replace('"colour": "red"', '"colour": "mauve"'))
    with pytest.raises(InvalidInputError, match="colour 'mauve' does not occur"):
        judge_pictures(read_attributed_pictures(folder), real, ColourEncoder(), NOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {}}, "no picture has attributes"),
        ({"attributes": "red"}, "no object of texts"),
        ({"attributes": {"colour": 3}}, "no object of texts"),
        ({"attributes": {"colour": "red"}, "group": 7}, "expected a text"),
    ],
)
def test_refuses_malformed_attributes_in_one_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "text": "red"} | change) + "\n")
    with pytest.raises(InvalidInputError, match=message) as raised:
        read_attributed_pictures(tmp_path)
    assert "\n" not in str(raised.value)


def test_the_same_pictures_train_the_same_classifier(tmp_path: Path) -> None:
    pictures = read_attributed_pictures(write_pictures(tmp_path, list_pairs(100, seed=1), seed=1))
    first, second = (
        prepare_real_pictures(pictures, NAMES, read_size(pictures), ColourEncoder()).classifier.network.state_dict()
        for _ in range(2)
    )
    assert all((first[name] == second[name]).all() for name in first)


def test_no_group_both_trains_and_tests(real: RealPictures) -> None:
    everything = read_attributed_pictures(real.held_out.paths[0].parent)
    held_out = set(real.held_out.groups)
    assert sum(group in held_out for group in everything.groups) == len(real.held_out)


@pytest.mark.parametrize(("hits", "draws"), [(0, 12), (7, 12), (12, 12), (450, 500)])
def test_the_interval_of_a_share_is_that_of_wilson(hits: int, draws: int) -> None:
    measure = measure_share([True] * hits + [False] * (draws - hits), range(draws))
    oracle = stats.binomtest(hits, draws).proportion_ci(method="wilson")
    assert (measure.value, measure.low, measure.high) == pytest.approx((hits / draws, oracle.low, oracle.high))


def test_pictures_of_one_sentence_are_one_draw() -> None:
    once = measure_share([True, False, True], "abc")
    assert measure_share([True, False, True] * 4, "abc" * 4) == once


def test_the_interval_of_a_ratio_covers_it_in_95_of_100_draws() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        first, second = (int(rng.binomial(n, p)) for n, p in ((200, 0.6), (300, 0.9)))
        shares = [measure_share([True] * k + [False] * (n - k), range(n)) for k, n in ((first, 200), (second, 300))]
        ratio = measure_ratio(*shares, 200, 300)
        covered += ratio.low <= 0.6 / 0.9 <= ratio.high
    assert 0.92 < covered / 400 < 0.98


def test_chance_is_the_mean_agreement_of_shuffled_pictures() -> None:
    rng = np.random.default_rng(0)
    asked, shown = rng.choice(list("abc"), 60, p=[0.6, 0.3, 0.1]), rng.choice(list("abd"), 60, p=[0.5, 0.2, 0.3])
    shuffled = [np.mean(asked == rng.permutation(shown)) for _ in range(4000)]
    assert compute_chance(asked.tolist(), shown.tolist()) == pytest.approx(np.mean(shuffled), abs=0.005)


def test_the_frechet_distance_equals_the_formula_with_a_matrix_root() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(50, 6)), rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 1
    means = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    one, other = np.cov(first.T), np.cov(second.T)
    oracle = means + np.trace(one + other - 2 * linalg.sqrtm(one @ other).real)
    assert compute_frechet_distance(first, second) == pytest.approx(oracle, rel=1e-6)
    assert compute_frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_diversity_is_the_mean_distance_within_sentences() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    # "a": 0, 1, 1 -> 2/3; "b": 1; "c" has one picture only
    assert compute_diversity(np.concatenate([vectors, vectors[:1]]), "aaabbc") == pytest.approx((2 / 3 + 1) / 2)
    assert math.isnan(compute_diversity(vectors[:2], "ab"))
