"""`produce evaluate` on small data of our own in the formats of the benchmarks."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.evaluation import caption_scores
from producers.encoders import load
from producers.evaluation import on_images
from producers.evaluation.encoding import open_text_image_encoder
from producers.evaluation.image_folder import read_image_folder
from producers.learning.export import export_encoder
from tests.deployments import run_main
from tests.producers.datasets.imports.tiny import encode_picture, write_lines

TEXTS = ["红色 连衣裙", "蓝色 积木", "a green cup", "白色 袜子"]
PICTURES = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A split with answers and one without; the last picture cannot be decoded."""
    folder = tmp_path / "muge"
    folder.mkdir()
    lines = [f"{100 + number}\t{encode_picture(number)}" for number in range(PICTURES)]
    for split in ("valid", "test"):
        (folder / f"{split}_imgs.tsv").write_text("\n".join([*lines, "999\tAAAA"]) + "\n")
    rows = [{"text_id": n, "text": text, "image_ids": [100 + n, 101 + n]} for n, text in enumerate(TEXTS)]
    write_lines(folder / "valid_texts.jsonl", *rows)
    write_lines(folder / "test_texts.jsonl", *({"text_id": row["text_id"], "text": row["text"]} for row in rows))
    captions = [{"image_id": f"i{n}", "text": [text, text[::-1]]} for n, text in enumerate(TEXTS)]
    write_lines(folder / "IC_valid.jsonl", *captions)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six pictures; two have one text, one has none, one cannot be decoded."""
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (8, 8), (50 * number, 100, 200)).save(folder / "a" / f"{number}.png")
    (folder / "a" / "5.png").write_bytes(b"no picture")
    texts: list[Any] = ["红色", "红色", ["蓝色", "绿色"], None, "白色", "黑色"]
    write_lines(folder / "metadata.jsonl", *({"file_name": f"a/{n}.png", "text": t} for n, t in enumerate(texts)))
    return folder


def evaluate(*arguments: object, code: int = 0) -> str:
    done = run_main("produce", "evaluate", *map(str, arguments))
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def figures(file: Path) -> dict[str, float]:
    return {name: measure["value"] for name, measure in json.loads(file.read_text())["measures"].items()}


def test_muge_by_an_encoder_equals_a_brute_force_search(data: Path, encoder: Path, tmp_path: Path) -> None:
    shown = evaluate("muge", "--from", data, "--encoder", encoder, "--json", tmp_path / "run.json")
    assert "1 pictures cannot be decoded, and are never found" in shown
    model = load(str(encoder))
    images = model.encode_images([_decode(number) for number in range(PICTURES)])
    scores = model.encode_texts(TEXTS) @ images.T
    for k in (1, 5, 10):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        hits = [bool({100 + n, 101 + n} & set((100 + row).tolist())) for n, row in enumerate(best)]
        assert figures(tmp_path / "run.json")[f"R@{k}"] == np.mean(hits)
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["subject"], content["queries"], content["documents"]) == (model.version, 4, PICTURES + 1)


def _decode(number: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (20 * number, 200, 250 - 20 * number))


def test_predictions_of_an_encoder_measure_the_same_when_they_are_read(
    data: Path, encoder: Path, tmp_path: Path
) -> None:
    predictions = tmp_path / "predictions.jsonl"
    first, second = tmp_path / "encoder.json", tmp_path / "file.json"
    evaluate("muge", "--from", data, "--encoder", encoder, "--output", predictions, "--json", first)
    evaluate("muge", "--from", data, "--predictions", predictions, "--json", second)
    assert figures(first) == figures(second)
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [(row["text_id"], len(set(row["image_ids"]))) for row in rows] == [(n, 10) for n in range(4)]
    assert 999 not in {image for row in rows for image in row["image_ids"]}


def test_a_split_without_answers_gives_predictions_and_no_measure(data: Path, encoder: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "test.jsonl"
    shown = evaluate("muge", "--from", data, "--split", "test", "--encoder", encoder, "--output", predictions)
    assert "4 queries have no answers" in shown
    assert "R@1" not in shown
    assert len(predictions.read_text().splitlines()) == 4
    text = evaluate("muge", "--from", data, "--split", "test", "--predictions", predictions, code=1)
    assert "4 of 4 queries of the split test have no answers" in text


def test_wrong_predictions_are_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    good = {"text_id": 0, "image_ids": list(range(10))}
    write_lines(file, good, {"text_id": 1, "image_ids": [1]})
    text = evaluate("muge", "--from", data, "--predictions", file, code=1)
    assert "line 2: image_ids has 1 ids" in text
    write_lines(file, good)
    text = evaluate("muge", "--from", data, "--predictions", file, code=1)
    assert "3 of 4 queries have no prediction, such as 1" in text
    assert "no valid_texts.jsonl" in evaluate("muge", "--from", tmp_path, "--predictions", file, code=1)
    assert "give --encoder or --predictions" in evaluate("muge", "--from", data, code=2)


def test_captions_are_scored_by_bleu_and_cider(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    predicted = ["红色 裙子", "蓝色 积木", "a red cup", "袜子"]
    write_lines(file, *({"image_id": f"i{n}", "text": text} for n, text in enumerate(predicted)))
    evaluate("muge", "--from", data, "--captions", "--predictions", file, "--json", tmp_path / "run.json")
    references = [[text, text[::-1]] for text in TEXTS]
    assert figures(tmp_path / "run.json") == {
        "BLEU-4": pytest.approx(caption_scores.compute_bleu4(predicted, references)),
        "CIDEr-D": pytest.approx(caption_scores.compute_cider_d(predicted, references)),
    }
    write_lines(file, {"image_id": "i0", "text": ["a", "b"]})
    text = evaluate("muge", "--from", data, "--captions", "--predictions", file, code=1)
    assert "4 of 4 pictures have no caption, or several, such as i0" in text


def test_a_folder_of_pictures_is_measured_by_its_own_texts(pictures: Path, encoder: Path, tmp_path: Path) -> None:
    shown = evaluate("images", "--from", pictures, "--encoder", encoder, "--json", tmp_path / "run.json")
    assert "5 queries, 6 pictures" in shown
    assert "1 pictures cannot be decoded" in shown
    model = load(str(encoder))
    images = model.encode_images([Image.open(pictures / "a" / f"{n}.png").convert("RGB") for n in range(5)])
    truth = {"红色": {0, 1}, "蓝色": {2}, "绿色": {2}, "白色": {4}, "黑色": {5}}
    best = np.argsort(-(model.encode_texts(list(truth)) @ images.T), axis=1, kind="stable")
    hits = [bool(true & {int(row[0])}) for true, row in zip(truth.values(), best, strict=True)]
    assert figures(tmp_path / "run.json")["R@1"] == np.mean(hits)
    assert figures(tmp_path / "run.json")["R@10"] == 0.8


def test_judged_queries_are_measured_as_their_run_is(pictures: Path, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("q1\t红色\nq2\t蓝色\n")
    (tmp_path / "qrels").write_text("q1 0 a/0.png 1\nq1 0 a/1.png 2\nq2 0 a/2.png 1\nq2 0 gone.png 1\nq3 0 a/3.png 0\n")
    first, second, run = tmp_path / "runs" / "a.json", tmp_path / "runs" / "b.json", tmp_path / "run.txt"
    options = ("--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels", "--output", run, "--json", first)
    shown = evaluate("images", "--from", pictures, "--encoder", encoder, *options)
    assert "1 judged documents are not in the folder" in shown
    evaluate("trec", "--qrels", tmp_path / "qrels", "--run", run, "--json", second)
    assert figures(first) == figures(second)
    assert figures(first)["recall@100"] == 0.75
    table = evaluate("table", tmp_path / "runs", "--output", tmp_path / "table.csv")
    assert "nDCG@10" in table
    assert table.count(f"{figures(first)['AP']:.3f}") >= 2
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert {float(row["AP"]) for row in rows} == {figures(first)["AP"]}
    assert float(rows[0]["AP low"]) <= float(rows[0]["AP"]) <= float(rows[0]["AP high"])


def test_an_export_measures_as_its_checkpoint(pictures: Path, encoder: Path, tmp_path: Path) -> None:
    export_encoder(str(encoder), tmp_path / "export", format="onnx", data=None, seed=0)
    paths = [pictures / "a" / f"{number}.png" for number in range(6)]
    vectors = []
    for path in (encoder, tmp_path / "export"):
        with open_text_image_encoder(str(path)) as opened:
            vectors.append(np.concatenate([opened.encode_pictures(paths), opened.encode_texts(TEXTS)]))
            assert opened.version.partition("@")[0] == encoder.name
    assert np.isnan(vectors[1][5]).all()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "no file_name"),
        ('{"file_name": "../x.png"}', "outside of the folder"),
        ('{"file_name": "/x.png"}', "outside of the folder"),
        (r'{"file_name": "x\u0000.png"}', "file_name has a NUL"),
        ('{"file_name": "x.png", "text": " "}', "text is blank"),
        ('{"file_name": "x.png", "text": [1]}', "text is blank, or neither"),
        ('{"file_name": "a.png"}', "file_name a.png occurs twice"),
        ("x", "not JSON"),
    ],
)
def test_a_malformed_line_of_the_metadata_is_named(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + line + "\n")
    with pytest.raises(InvalidInputError, match=f"metadata.jsonl: line 2: .*{reason}"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("read", "line", "reason"),
    [
        (on_images.read_qrels, "q1 0 d1", "expected QUERY 0 DOCUMENT RELEVANCE"),
        (on_images.read_qrels, "q1 0 d1 x", "expected QUERY 0 DOCUMENT RELEVANCE"),
        (on_images.read_qrels, "q 0 d 1", "d is judged twice for q"),
        (on_images.read_run, "q1 Q0 d1 1 nan me", "expected QUERY Q0 DOCUMENT RANK SCORE NAME"),
        (on_images.read_run, "q Q0 d 2 1.5 me", "d occurs twice for q"),
        (on_images.read_texts, "q1 no tab", "expected QUERY, a tab and a text"),
        (on_images.read_texts, "q\tagain", "query q occurs twice"),
    ],
)
def test_a_malformed_line_of_a_trec_file_is_named(read, line: str, reason: str, tmp_path: Path) -> None:
    first = {on_images.read_qrels: "q 0 d 1", on_images.read_run: "q Q0 d 1 2.5 me", on_images.read_texts: "q\ttext"}[
        read
    ]
    (tmp_path / "file").write_text(f"{first}\n{line}\n")
    with pytest.raises(InvalidInputError, match=f"line 2: {reason}"):
        read(tmp_path / "file")


def test_a_folder_without_runs_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    assert "no JSON file" in evaluate("table", tmp_path, code=1)
    for content in ("{", "[]", '{"measures": {"a": 1}}', '{"dataset": "x"}'):
        (tmp_path / "a.json").write_text(content)
        assert "not the JSON of produce evaluate" in evaluate("table", tmp_path, code=1)
    with pytest.raises(NotFoundError, match=r"no metadata\.jsonl"):
        read_image_folder(tmp_path)
