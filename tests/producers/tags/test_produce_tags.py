"""`produce tags` on generated vectors with known tags."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine
from feature_repo.schema import PRODUCT_TAGS, TAG_PREDICTIONS, TAG_SPLITS, TAG_VARIANTS, TAGS
from producers.tags.labels import read_labels as read_labels
from producers.tags.run import TaggingSummary, tag_products
from tests.deployments import run_main
from tests.producers.tags import world


def run(
    store: Settings,
    labels: Path,
    abstain: float = 0.5,
    encoder_version: str | None = None,
    recompute: bool = False,
    day: int = 0,
) -> TaggingSummary:
    now = world.NOW + timedelta(days=day)
    return tag_products(store, labels, encoder_version=encoder_version, abstain=abstain, recompute=recompute, now=now)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, TaggingSummary]:
    folder = tmp_path_factory.mktemp("shop")
    store = world.stocked(folder)
    labels = world.write_labels(folder / "labels.parquet", world.labels(list(range(200))))
    return store, labels, run(store, labels)


def read(store: Settings, table: str) -> pa.Table:
    return delta.read(store.table(table))


def test_every_product_with_vectors_is_tagged(tagged: tuple[Settings, Path, TaggingSummary]) -> None:
    store, _, summary = tagged
    tags, vectors = read(store, "product_tags"), read(store, "product_embedding")
    assert tags.schema.equals(PRODUCT_TAGS)
    keys = ["product_id", "event_timestamp"]
    assert sorted(tags.select(keys).to_pylist(), key=str) == sorted(vectors.select(keys).to_pylist(), key=str)
    assert summary.rows == len(tags)
    assert set(tags["encoder_version"].to_pylist()) == {"tiny-1"}
    assert set(tags["created_timestamp"].to_pylist()) == {world.NOW}


def test_most_tags_of_unlabelled_products_are_correct(tagged: tuple[Settings, Path, TaggingSummary]) -> None:
    tags = read(tagged[0], "product_tags")
    rows = [row for row in tags.to_pylist() if int(row["product_id"][1:]) >= 200]
    for tag in TAGS:
        is_correct = [row[tag] == world.truth(int(row["product_id"][1:]) // 2)[tag] for row in rows if row[tag]]
        assert len(is_correct) > 60
        assert np.mean(is_correct) > 0.85


def test_a_label_below_the_threshold_is_null_and_its_probability_is_kept(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))
    run(store, labels, abstain=0.9)
    tags = read(store, "product_tags")
    for tag in TAGS:
        surest = tags[f"{tag}_probability"].to_numpy()
        assert (surest < 0.9).any()
        assert tags[tag].is_null().to_numpy().tolist() == (surest < np.float32(0.9)).tolist()


def test_distributions_sum_to_one_and_their_maximum_is_the_stored_probability(
    tagged: tuple[Settings, Path, TaggingSummary],
) -> None:
    tags = read(tagged[0], "product_tags")
    for tag, values in (("child_age", 5), ("child_gender", 3)):
        distribution = np.array(tags[f"{tag}_distribution"].to_pylist())
        assert distribution.shape == (len(tags), values)
        assert distribution.sum(axis=1) == pytest.approx(np.ones(len(tags)), abs=1e-5)
        assert distribution.max(axis=1) == pytest.approx(tags[f"{tag}_probability"].to_numpy())


def test_predictions_of_every_variant_are_stored_for_products_outside_the_training_split(
    tagged: tuple[Settings, Path, TaggingSummary],
) -> None:
    predictions = read(tagged[0], "tag_predictions")
    assert predictions.schema.equals(TAG_PREDICTIONS)
    assert set(predictions["variant"].to_pylist()) == set(TAG_VARIANTS)
    assert set(predictions["split"].to_pylist()) == set(TAG_SPLITS)
    sides = predictions.group_by("group").aggregate([("split", "count_distinct")])
    assert pc.max(sides["split_count_distinct"]).as_py() == 1
    products = {
        variant: sorted(predictions.filter(pc.field("variant") == variant)["product_id"].to_pylist())
        for variant in TAG_VARIANTS
    }
    assert all(products[variant] == products[TAG_VARIANTS[0]] for variant in TAG_VARIANTS)
    for row in predictions.slice(0, 50).to_pylist():
        assert row["truth"] == world.truth(int(row["product_id"][1:]) // 2)[row["tag"]]


def test_a_second_run_adds_nothing(tagged: tuple[Settings, Path, TaggingSummary]) -> None:
    store, labels, first = tagged
    before = {name: len(read(store, name)) for name in ("product_tags", "tag_predictions", "quarantine")}
    again = run(store, labels)
    assert (again.rows, again.predictions, again.tagger_version) == (0, 0, first.tagger_version)
    assert {name: len(read(store, name)) for name in before} == before


def test_new_product_versions_are_tagged_by_the_same_tagger_version(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))
    first = run(store, labels)
    changed = world.catalogue(60, at=world.START + timedelta(days=9)).slice(0, 14)
    delta.append(store.table("product_catalogue"), changed)
    delta.append(store.table("product_embedding"), world.embeddings(changed, seed=5))
    second = run(store, labels)
    assert (second.tagger_version, second.rows, second.predictions) == (first.tagger_version, 14, 0)


def newest_tags(store: Settings) -> dict:
    """The row created last of each product version, but of the second encoder."""
    rows = read(store, "product_tags").sort_by("created_timestamp").to_pylist()
    rows = [row for row in rows if row["encoder_version"] != "tiny-2"]
    return {(row["product_id"], row["event_timestamp"]): row | {"created_timestamp": None} for row in rows}


def test_corrections_take_effect_and_the_tags_of_the_first_encoder_are_kept_beside_those_of_another(
    tmp_path: Path,
) -> None:
    store, products = world.stocked(tmp_path, designs=60), world.catalogue(60)
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))
    first = run(store, labels)
    rows, path = newest_tags(store), store.table("product_embedding")
    delta.append(path, world.embeddings(products, version="tiny-2", seed=8, created=world.START + timedelta(days=2)))
    other = run(store, labels, day=1)
    assert (other.rows, other.predictions) == (first.rows, first.predictions)
    delta.append(path, world.embeddings(products, created=world.START + timedelta(days=3)))
    again = run(store, labels, day=2)
    assert (again.rows, again.predictions, again.tagger_version) == (0, 0, first.tagger_version)
    assert newest_tags(store) == rows

    title = products.slice(100, 1).to_pylist()[0] | {"title": "boy 6-14y doll", "created_timestamp": world.NOW}
    delta.append(store.table("product_catalogue"), pa.Table.from_pylist([title], products.schema))
    corrected = run(store, labels, day=3)  # of a product without a label
    assert (corrected.rows, corrected.predictions) == (1, 0)
    title |= {"product_id": "p0001", "event_timestamp": products["event_timestamp"][1].as_py()}
    delta.append(store.table("product_catalogue"), pa.Table.from_pylist([title], products.schema))
    corrected = run(store, labels, day=4)  # of a product with a label, from which all taggers learn
    assert (corrected.rows, corrected.predictions) == (first.rows, first.predictions)
    assert (run(store, labels, day=5).rows, run(store, labels, day=5).predictions) == (0, 0)

    for table in ("product_tags", "tag_predictions"):
        delta.overwrite(store.table(table), read(store, table).drop_columns(["input_digest"]))
    old = run(store, labels, day=6)
    assert (old.rows, old.predictions) == (0, 0)
    old = run(store, labels, day=7, recompute=True)
    assert (old.rows, old.predictions) == (first.rows, first.predictions)
    assert run(store, labels, day=8).rows == 0


def test_other_labels_give_another_tagger_version(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    first = run(store, world.write_labels(tmp_path / "a.parquet", world.labels(list(range(80)))))
    second = run(store, world.write_labels(tmp_path / "b.parquet", world.labels(list(range(79)))))
    assert first.tagger_version != second.tagger_version
    assert second.rows == first.rows


def test_invalid_labels_are_quarantined_and_the_others_are_used(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    bad: list[dict[str, str | None]] = [
        {"product_id": "ghost", "tag": "category", "value": "toys", "group": None},
        {"product_id": "p0000", "tag": "child_age", "value": "grown up", "group": None},
        {"product_id": "p0001", "tag": "sm=ll", "value": "roses", "group": None},
    ]
    summary = run(store, world.write_labels(tmp_path / "labels.parquet", [*bad, *world.labels(list(range(2, 60)))]))
    refused = quarantine.read(store).filter(pc.field("step") == "tags").to_pylist()
    assert {(row["row_id"], row["column"], row["value"]) for row in refused} >= {
        ("ghost", "product_id", "ghost"),
        ("p0000", "value", "grown up"),
        ("p0001", "tag", "sm=ll"),
    }
    assert summary.refused == len(refused)
    assert "1 label: not a child_age: it must be one of 0-6m, 6-12m, 1-3y, 3-6y, 6-14y (for example `grown up`)" in (
        summary.reasons
    )


def test_labels_that_are_all_refused_end_in_one_line_with_the_allowed_values(tmp_path: Path) -> None:
    rows = [row | {"value": "24M+"} for row in world.labels([0, 1, 2]) if row["tag"] == "child_age"]
    file = world.write_labels(tmp_path / "labels.parquet", rows)
    expected = r"none of its 3 labels is valid: 3 labels: not a child_age: .* 0-6m, 6-12m, 1-3y.*`24M\+`"
    with pytest.raises(VitrineError, match=expected) as caught:
        run(world.stocked(tmp_path, designs=10), file)
    assert "\n" not in str(caught.value)


def test_the_stages_of_child_age_are_those_of_the_configuration(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=40)
    names = {"0-6m": "newborn", "6-12m": "baby", "1-3y": "toddler", "3-6y": "child", "6-14y": "pupil"}
    months = [(0, 3), (3, 12), (12, 36), (36, 84), (84, 132), (132, 216)]
    with store.file.open("a") as file:
        file.write("child_age_stages:\n")
        file.writelines(f"  {n}: {list(m)}\n" for n, m in zip([*names.values(), "teenager"], months, strict=True))
    rows = [row | {"value": names.get(str(row["value"]), row["value"])} for row in world.labels(list(range(80)))]
    labels = world.write_labels(tmp_path / "labels.parquet", rows)
    store = config.load(store.file)
    summary = run(store, labels)
    assert not any("child_age" in reason for reason in summary.reasons)
    tags = read(store, "product_tags")
    assert set(tags["child_age"].drop_null().to_pylist()) <= {*names.values()}
    assert {len(one) for one in tags["child_age_distribution"].to_pylist()} == {6}
    store.file.write_text(store.file.read_text().replace("  teenager: [132, 216]\n", ""))
    assert run(config.load(store.file), labels, day=1).tagger_version != summary.tagger_version  # another distribution


def test_a_further_tag_is_learned_and_stored_in_one_column(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=40)
    # What the category implies, so that it can be learned.
    rows = world.labels(list(range(80)))
    rows += [row | {"tag": "season", "value": f"of {row['value']}"} for row in rows if row["tag"] == "category"]
    summary = run(store, world.write_labels(tmp_path / "labels.parquet", rows))
    assert summary.further_tags == ("season",)
    tags = read(store, "product_tags").to_pylist()
    texts = [text for row in tags for text in row["further_tags"]]
    assert len(texts) > len(tags) / 2
    assert {text.partition("=")[0] for text in texts} == {"season"}
    is_equal = [row["further_tags"] == [f"season=of {row['category']}"] for row in tags if row["further_tags"]]
    assert np.mean(is_equal) > 0.9
    assert "season" in read(store, "tag_predictions")["tag"].to_pylist()


def test_a_tag_with_too_few_labels_is_null_and_reported(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    rows = [row for row in world.labels(list(range(80))) if row["tag"] == "category"]
    summary = run(store, world.write_labels(tmp_path / "labels.parquet", rows))
    assert summary.unlearned == ("child_age", "child_gender")
    tags = read(store, "product_tags")
    for name in ("child_age", "child_age_probability", "child_age_distribution", "child_gender"):
        assert tags[name].null_count == len(tags)


def test_a_run_that_can_learn_no_tag_writes_nothing(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=20)
    run(store, world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(40)))))
    before = read(store, "product_tags")
    few = world.write_labels(tmp_path / "few.parquet", world.labels([0]))
    with pytest.raises(VitrineError, match=r"few\.parquet: no tag of child_age.* nothing was written"):
        run(store, few)
    assert read(store, "product_tags").equals(before)


def test_an_ambiguous_encoder_version_is_refused_and_versions_are_never_mixed(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    newer = world.catalogue(60).slice(0, 50)
    created = world.START + timedelta(days=5)
    delta.append(store.table("product_embedding"), world.embeddings(newer, version="tiny-2", seed=8, created=created))
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))
    with pytest.raises(VitrineError, match=r"tiny-2 covers \d+ products, tiny-1 covers \d+ .*--encoder-version"):
        run(store, labels)
    summary = run(store, labels, encoder_version="tiny-1")
    assert summary.encoder_version == "tiny-1"
    rest = world.catalogue(60).slice(50)
    delta.append(store.table("product_embedding"), world.embeddings(rest, version="tiny-2", seed=8, created=created))
    assert run(store, labels).encoder_version == "tiny-2"
    with pytest.raises(VitrineError, match="no vectors of encoder version tiny-3; there are vectors of tiny-1, tiny-2"):
        run(store, labels, encoder_version="tiny-3")


def test_the_row_that_was_created_last_is_used(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    again = world.embeddings(world.catalogue(60), seed=9, created=world.START + timedelta(days=3))
    delta.append(store.table("product_embedding"), again)
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))
    assert run(store, labels).rows == len(again)


def test_vectors_without_a_catalogue_row_are_reported(tmp_path: Path) -> None:
    store = world.store(tmp_path)
    products = world.catalogue(30)
    delta.append(store.table("product_catalogue"), products.slice(0, 20))
    delta.append(store.table("product_embedding"), world.embeddings(products))
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(40))))
    with pytest.raises(VitrineError, match="have a text vector and no row in `product_catalogue`"):
        run(store, labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as parquet"),
        ({"product_id": ["p0000"], "tag": ["child_age"]}, "no column value"),
        ({"product_id": ["p0000"], "tag": ["child_age"], "value": [[1]]}, "must be text"),
        (dict.fromkeys(("product_id", "tag", "value"), pa.array([], pa.string())), "the table is empty"),
        ({"product_id": [None, "p0000"], "tag": [None, "child_age"], "value": ["x", None]}, "none of its 2 labels is"),
        ({"product_id": ["ghost"], "tag": ["child_age"], "value": ["1-3y"]}, "none of its 1 labels is valid"),
    ],
)
def test_an_invalid_label_file_is_reported_in_one_line(
    tmp_path: Path, content: dict[str, list[object]] | None, message: str
) -> None:
    file = tmp_path / "labels.parquet"
    if content is None:
        file.write_text("product_id,tag,value\n")
    else:
        pq.write_table(pa.table(content), file)
    with pytest.raises(VitrineError, match=message) as caught:
        run(world.stocked(tmp_path, designs=10), file)
    assert "\n" not in str(caught.value)


def test_labels_from_csv_equal_labels_from_parquet(tmp_path: Path) -> None:
    rows = [*world.labels(list(range(60))), {"product_id": "7", "tag": "category", "value": None}]
    parquet, csv = tmp_path / "labels.parquet", tmp_path / "labels.csv"
    world.write_labels(parquet, rows)
    pyarrow.csv.write_csv(pq.read_table(parquet), csv)
    assert read_labels(csv).equals(read_labels(parquet))


def test_labels_that_look_equal_are_one_class(tmp_path: Path) -> None:
    columns = {
        "product_id": ["p1 ", "\ufeffp2", "p3"],
        "tag": ["category", "category\xa0", "child_age"],
        "value": ["服装>裤子 ", "服装 &gt; 裤\u200b子", " 1-3y"],
    }
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.table(columns), file)
    assert [tuple(row.values()) for row in read_labels(file).to_pylist()] == [
        ("p1", "category", "服装>裤子"),
        ("p2", "category", "服装>裤子"),
        ("p3", "child_age", "1-3y"),
    ]


def test_a_truncated_label_file_is_reported(tmp_path: Path) -> None:
    file = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(10))))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(VitrineError, match=r"labels.parquet: cannot be read as parquet"):
        run(world.stocked(tmp_path, designs=10), file)


def test_a_category_may_be_text_of_any_script_and_length(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=40)
    names = {"clothes>dress": "👗🏽 платье", "clothes>romper": "连体衣 طفل", "toys>blocks": "积" * 100_000}
    rows = [row | {"value": names.get(str(row["value"]), row["value"])} for row in world.labels(list(range(80)))]
    run(store, world.write_labels(tmp_path / "labels.parquet", rows))
    assert set(names.values()) & set(read(store, "product_tags")["category"].to_pylist())


def test_the_command_prints_a_summary_and_reports_a_user_error_in_one_line(tmp_path: Path) -> None:
    store = world.stocked(tmp_path, designs=60)
    labels = world.write_labels(tmp_path / "labels.parquet", world.labels(list(range(80))))

    good = run_main("produce", "tags", "--store", str(store.file), "--labels", str(labels))
    assert good.returncode == 0, good.stderr
    assert "rows added to product_tags" in good.stdout
    bad = run_main("produce", "tags", "--store", str(store.file), "--labels", str(tmp_path / "nowhere.parquet"))
    assert bad.returncode == 1
    assert bad.stderr.strip().count("\n") == 0
    assert "Traceback" not in bad.stderr
