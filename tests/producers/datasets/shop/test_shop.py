"""Properties of the generated shop, tested on small shops."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from feature_repo import schema
from feature_repo.errors import VitrineError
from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.assortment import DAY, START, make_assortment
from producers.datasets.shop.people import age_in_stages
from producers.datasets.shop.product_images import draw_images
from producers.datasets.shop.write import make_shop
from tests.deployments import run_main

SMALL = {"products": 600, "users": 80, "days": 24, "seed": 3, "language": "zh", "impressions_per_user": 500}


def hash_files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def make(output: Path, **changed: object) -> Path:
    make_shop(output, **(SMALL | changed))  # type: ignore[arg-type]
    return output


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shop"))


def read(shop: Path, name: str) -> pa.Table:
    return pq.read_table(shop / f"{name}.parquet")


def microseconds(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    once, again = (make(tmp_path / name, products=100, users=20) for name in ("once", "again"))
    assert hash_files(again) == hash_files(once)


def test_a_shop_is_the_same_in_every_version(tmp_path: Path) -> None:
    folder = make(tmp_path, language="en", products=120, users=30, days=8, impressions_per_user=30, seed=1)
    products, impressions = read(folder, "products"), read(folder, "impressions")
    columns = [products["title"], products["price"], impressions["product_id"], impressions["clicked"]]
    content = repr(tuple(column.to_pylist() for column in columns))
    expected = "152dfba5b1224d6b8bf5618ee8f30730662a18489a8e745d8d4b2d0b6b3a8a94"  # computed with version 0.1.0
    assert hashlib.sha256(content.encode()).hexdigest() == expected


def test_another_seed_gives_another_shop(tmp_path: Path) -> None:
    first, second = (make(tmp_path / str(seed), products=20, users=5, seed=seed) for seed in (0, 1))
    same = hash_files(first).items() & hash_files(second).items()
    assert {name for name, _ in same} <= {"truth/words.parquet"}, "the vocabulary does not depend on the seed"


def test_an_image_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    assortment = make_assortment(260, 10, 7)
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        assert sum(draw_images(assortment, tmp_path / str(processes), seed=7, processes=processes)) == 260
    assert hash_files(tmp_path / "1") == hash_files(tmp_path / "2")


def test_the_tables_have_the_contracts_columns(shop: Path) -> None:
    assert read(shop, "products").schema.equals(pa.schema([*schema.PRODUCTS, *schema.OPTIONAL_PRODUCTS]))
    impressions = read(shop, "impressions").schema
    assert impressions.names[: len(schema.IMPRESSIONS)] == schema.IMPRESSIONS.names
    assert pa.schema(list(impressions)[: len(schema.IMPRESSIONS)]).equals(schema.IMPRESSIONS)
    assert impressions.field("child_age_months").type == pa.float32()
    assert read(shop, "labels").schema.names == [*schema.LABELS.names, "group"]
    assert read(shop, "truth/products").schema.field("style").type == schema.VECTOR


def test_impressions_are_sorted_and_within_the_log(shop: Path) -> None:
    timestamp_us = microseconds(read(shop, "impressions")["event_timestamp"])
    assert (np.diff(timestamp_us) >= 0).all()
    assert timestamp_us.min() >= START
    assert timestamp_us.max() < START + SMALL["days"] * DAY
    assert 0.1 < (np.diff(timestamp_us) == 0).mean() < 0.6  # some products appear together
    assert (timestamp_us % 1_000_000 != 0).mean() > 0.9  # to the microsecond


def test_the_log_has_about_the_requested_size(shop: Path) -> None:
    assert len(read(shop, "impressions")) == pytest.approx(SMALL["users"] * SMALL["impressions_per_user"], rel=0.03)


def test_no_product_is_shown_before_it_is_listed_nor_twice_on_a_page(shop: Path) -> None:
    impressions, products = read(shop, "impressions"), read(shop, "products")
    row = pc.index_in(impressions["product_id"], products["product_id"].combine_chunks())
    assert row.null_count == 0
    listed = microseconds(products["updated_at"])[row.to_numpy()]
    assert (listed <= microseconds(impressions["event_timestamp"])).all()
    view = impressions.select(["user_id", "product_id", "event_timestamp"])
    assert len(view.group_by(view.column_names).aggregate([])) == len(view)


def test_half_of_the_products_are_listed_before_the_start_and_the_others_over_the_days(shop: Path) -> None:
    products, impressions = read(shop, "products"), read(shop, "impressions")
    listed = microseconds(products["updated_at"])
    assert (listed < START).mean() == 0.5
    assert (np.diff(listed) >= 0).all()
    late = START + int(SMALL["days"] * DAY * (1 - parameters.NEWEST_SHARE))
    last_days = impressions.filter(microseconds(impressions["event_timestamp"]) >= late)
    row = pc.index_in(last_days["product_id"], products["product_id"].combine_chunks()).to_numpy()
    assert (listed[row] >= late).mean() >= 0.2


def test_a_few_products_get_most_of_the_impressions(shop: Path) -> None:
    counts = np.sort(read(shop, "impressions")["product_id"].value_counts().field("counts").to_numpy())[::-1]
    assert counts[: SMALL["products"] // 5].sum() > 0.4 * counts.sum()
    assert counts[-SMALL["products"] // 5 :].sum() < 0.1 * counts.sum()


def test_clicks_are_drawn_from_the_true_probability(shop: Path) -> None:
    truth, impressions = read(shop, "truth/impressions"), read(shop, "impressions")
    assert truth["impression_id"].equals(impressions["impression_id"])
    p, clicked = truth["click_probability"].to_numpy(), impressions["clicked"].to_numpy()
    assert p.mean() == pytest.approx(parameters.CLICK_RATE, abs=1e-6)
    for tenth in np.array_split(np.argsort(p), 10):
        z = (clicked[tenth].sum() - p[tenth].sum()) / np.sqrt((p[tenth] * (1 - p[tenth])).sum())
        assert abs(z) < 4


def test_the_ground_truth_is_aligned_with_the_tables(shop: Path) -> None:
    products, truth = read(shop, "products"), read(shop, "truth/products")
    assert truth["product_id"].equals(products["product_id"])
    style = np.stack(truth["style"].to_numpy())
    assert style.shape == (SMALL["products"], vocabulary.STYLE_WIDTH)
    assert (style.sum(axis=1) == len(vocabulary.STYLE)).all()
    taste = np.stack(read(shop, "truth/users")["taste"].to_numpy())
    assert taste.shape == (SMALL["users"], vocabulary.STYLE_WIDTH)
    assert (taste @ style.T).std() == pytest.approx(1, abs=0.15)
    missing = pc.is_null(products["image"]).to_numpy()
    assert (missing == (truth["image_quality"].to_numpy() == "missing")).all()


def test_the_shop_knows_the_children_of_some_users_correctly(shop: Path) -> None:
    users, truth = read(shop, "users"), read(shop, "truth/users")
    is_known = pc.is_valid(users["child_birthday"])
    assert 0.4 < pc.mean(is_known.cast(pa.int8())).as_py() < 0.8
    assert is_known.equals(pc.is_valid(users["child_gender"]))
    assert users.filter(is_known).equals(truth.select(users.column_names).filter(is_known))
    impressions = read(shop, "impressions")
    row = pc.index_in(impressions["user_id"], users["user_id"].combine_chunks())
    assert pc.is_valid(impressions["child_age_months"]).equals(is_known.take(row))
    some = impressions.slice(len(impressions) - 1).to_pylist()[0] | truth.to_pylist()[row[-1].as_py()]
    age = (some["event_timestamp"].date() - some["child_birthday"]).days / 30.4375
    if is_known.take(row)[-1].as_py():
        assert some["child_age_months"] == pytest.approx(age, abs=1 / 30)


def test_age_in_stages_is_piecewise_linear() -> None:
    assert age_in_stages(np.array([0.0, 6.0, 24.0, 72.0, 300.0])).tolist() == [0, 1, 2.5, 4, 5]


def test_labels_are_correct_complete_and_cover_their_share(shop: Path) -> None:
    labels, truth = read(shop, "labels"), read(shop, "truth/products")
    assert labels.group_by("product_id").aggregate([("tag", "count")])["tag_count"].unique().to_pylist() == [5]
    joined = labels.join(truth.drop_columns(["style"]), "product_id")
    for tag in (*schema.TAGS, "colour", "pattern"):
        rows = joined.filter(pc.equal(joined["tag"], tag))
        assert rows["value"].equals(rows[tag])
    assert joined["group"].equals(joined["design_id"])
    share = len(labels["group"].unique()) / len(truth["design_id"].unique())
    assert share == pytest.approx(0.57, abs=0.08)
    listed = dict(zip(*read(shop, "products").select(["product_id", "updated_at"]).to_pydict().values(), strict=True))
    newest = max(listed[product].timestamp() for product in labels["product_id"].to_pylist())
    assert newest * 1e6 < START + SMALL["days"] * DAY * (1 - parameters.NEWEST_SHARE)


def test_one_design_has_one_to_four_products_with_different_titles_and_prices(shop: Path) -> None:
    table = read(shop, "products").append_column("design", read(shop, "truth/products")["design_id"])
    grouped = table.group_by("design").aggregate([("title", "count"), ("title", "count_distinct")])
    assert set(grouped["title_count"].to_pylist()) == {1, 2, 3, 4}
    assert grouped["title_count"].equals(grouped["title_count_distinct"])


def test_attributes_are_wrong_or_missing_with_their_probability(shop: Path) -> None:
    products, truth = read(shop, "products"), read(shop, "truth/products")
    assert products["category"].null_count / len(products) == pytest.approx(parameters.MISSING_CATEGORY, abs=0.02)
    wrong = pc.sum(pc.not_equal(products["category"], truth["category"])).as_py() / len(products)
    assert wrong == pytest.approx(parameters.WRONG_CATEGORY, abs=0.025)
    assert products["brand"].null_count / len(products) == pytest.approx(parameters.MISSING_BRAND, abs=0.04)
    assert products["image"].null_count / len(products) == pytest.approx(parameters.MISSING_IMAGE, abs=0.025)
    assert pc.min(products["price"]).as_py() > 0


def test_a_title_that_is_not_stuffed_states_no_other_age(shop: Path) -> None:
    truth, titles = read(shop, "truth/products").to_pylist(), read(shop, "products")["title"].to_pylist()
    plain = [words[0] for words in vocabulary.AGE_WORDS["zh"]]
    lies = {True: 0, False: 0}
    for title, true in zip(titles, truth, strict=True):
        others = [word for stage, word in zip(schema.CHILD_AGES, plain, strict=True) if stage != true["child_age"]]
        lies[true["stuffed"]] += any(word in title for word in others)
    assert lies[False] == 0
    assert lies[True] > 20


def test_every_image_opens_and_there_are_no_other_files(shop: Path) -> None:
    products = read(shop, "products")
    images = [image for image in products["image"].to_pylist() if image]
    further = [image for more in products["images"].to_pylist() for image in more or ()]
    assert 0 < len(further) < 0.3 * len(images)
    images += further
    assert sorted(images) == sorted(f"images/{file.name}" for file in (shop / "images").iterdir())
    for image in images[:50]:
        with Image.open(shop / image) as image_file:
            assert (image_file.mode, image_file.format) == ("RGB", "JPEG")
            assert np.asarray(image_file).std() > 3


def test_the_english_shop_is_the_same_shop_in_english(tmp_path: Path) -> None:
    chinese, english = (
        make(tmp_path / language, language=language, products=200, users=20) for language in ("zh", "en")
    )
    assert all(title.isascii() for title in read(english, "products")["title"].to_pylist())
    assert read(english, "impressions").equals(read(chinese, "impressions"))
    assert read(english, "truth/products")["style"].equals(read(chinese, "truth/products")["style"])


@pytest.mark.parametrize(("products", "users", "days"), [(1, 1, 1), (1, 3, 2), (2, 1, 1), (3, 2, 40)])
def test_tiny_shops_work(tmp_path: Path, products: int, users: int, days: int) -> None:
    made = make_shop(
        tmp_path, products=products, users=users, days=days, seed=0, language="zh", impressions_per_user=20
    )
    assert made.products == products == len(read(tmp_path, "products")) == len(read(tmp_path, "truth/products"))
    assert made.impressions == len(read(tmp_path, "impressions")) > 0


def test_a_smaller_shop_replaces_a_bigger_one_without_leftovers(tmp_path: Path) -> None:
    make(tmp_path / "a", products=30, users=2)
    make(tmp_path / "a", products=10, users=2)
    make(tmp_path / "b", products=10, users=2)
    assert hash_files(tmp_path / "a") == hash_files(tmp_path / "b")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"products": 0}, "--products is 0"),
        ({"users": -1}, "--users is -1"),
        ({"days": 0}, "--days is 0"),
        ({"impressions_per_user": 0}, "--impressions-per-user is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"language": "fr"}, "use one of zh, en"),
    ],
)
def test_an_invalid_argument_raises_one_line(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(VitrineError, match=message):
        make(tmp_path / "shop", **changed)
    assert not (tmp_path / "shop").exists()


def test_a_folder_with_other_files_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VitrineError, match=r"holds thesis\.txt"):
        make(tmp_path)
    with pytest.raises(VitrineError, match="is a file"):
        make(tmp_path / "thesis.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_prints_the_sizes(tmp_path: Path) -> None:
    command = ["produce", "shop", "--products", "40", "--users", "5", "--days", "3", "--output", str(tmp_path)]
    done = run_main(*command)
    assert done.returncode == 0, done.stderr
    assert "40 products" in done.stdout
    refused = run_main(*command, "--seed", "-4")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr
