"""What each importer makes of a few invented rows in the format of its set."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from feature_repo import schema
from feature_repo.errors import UsageError
from producers.datasets.imports import abt_buy, beibei_zh, flipkart_1050, grocery, movielens, muge, mum_baby
from producers.datasets.imports.folder import find_age_stage
from producers.datasets.imports.registry import import_dataset
from tests.producers.datasets.imports.outcome import NOW, imported, labels, products, refused, rows
from tests.producers.datasets.imports.tiny import MAKERS


def test_flipkart_product_has_its_title_category_path_and_discounted_price(tmp_path: Path) -> None:
    by_id = products(imported("flipkart_1050", tmp_path))
    assert by_id["a"] == {
        "product_id": "a",
        "title": "Acme Red Hat",
        "image": str(tmp_path / "from" / "images" / "a.jpg"),
        "category": "Baby Care>Hats",
        "brand": None,
        "price": 60.5,
        "updated_at": datetime(2016, 4, 30, 3, 22, 56, tzinfo=UTC),
        "description": "a hat,\nred",
    }
    assert (by_id["b"]["price"], by_id["b"]["image"], by_id["b"]["category"]) == (20.0, None, "Kitchen")


def test_flipkart_labels_what_is_stated_and_groups_the_products_of_a_brand(tmp_path: Path) -> None:
    output = imported("flipkart_1050", tmp_path)
    assert labels(output) == {
        ("a", "category", "Baby Care"),
        ("b", "category", "Kitchen"),
        ("c", "category", "Baby Care"),
        ("a", "child_gender", "girl"),
        ("c", "child_gender", "unisex"),
        ("c", "child_age", "0-6m"),
    }
    assert {row["group"] for row in rows(output, "labels") if row["product_id"] in "ac"} == {"Acme Hats"}
    assert refused(output) == [
        ("b", flipkart_1050.MISSING_IMAGE, "gone.jpg"),
        ("d", flipkart_1050.INVALID_CATEGORY_TREE, "nonsense"),
    ]


@pytest.mark.parametrize(
    ("tree", "name", "brand", "kinds", "shelf"),
    [
        ("Watches >> Wrist Watches >> Maxima Wrist Watches", "Maxima 05", None, ["Watches", "Wrist Watches"], "Maxima"),
        ("Home >> Posters >> Mega Posters >> good-night (18...", "good-night", "MEGA", ["Home", "Posters"], "Mega"),
        ("Home >> Rugs >> M S Pink Rug (120 cm)", "M S Pink Rug", None, ["Home", "Rugs"], None),
        ("Home >> Rugs >> M S Pink R...", "M S Pink Rug", None, ["Home", "Rugs"], None),
    ],
)
def test_flipkart_category_path_ends_before_the_brand_or_the_name(
    tree: str, name: str, brand: str | None, kinds: list[str], shelf: str | None
) -> None:
    levels, brand_level = flipkart_1050.parse_category_tree(f'["{tree}"]', name, brand)
    assert levels == kinds
    assert brand_level == (shelf and f"{shelf} {kinds[-1]}")


@pytest.mark.parametrize(
    ("stated", "gender"),
    [
        ("Baby Boy's", "boy"),
        ("Girls", "girl"),
        ("BoysIIGirls", "unisex"),
        ("Baby Girl's, Baby Boy's", "unisex"),
        ("Women, Girls", None),
        ("Men", None),
        ("Outdoor", None),
        (None, None),
    ],
)
def test_flipkart_reads_a_childs_gender_unless_an_adult_is_named(stated: str | None, gender: str | None) -> None:
    assert flipkart_1050.parse_child_gender(stated) == gender


@pytest.mark.parametrize(
    ("stated", "stage"),
    [
        ("6 - 9 Months", "6-12m"),
        ("18 - 24 month", "1-3y"),
        ("0 - 3 Years", None),
        ("0 - 3", None),
        ("6 Months Plus", None),
    ],
)
def test_flipkart_reads_an_age_group_within_one_stage(stated: str, stage: str | None) -> None:
    assert flipkart_1050.parse_child_age(stated) == stage


@pytest.mark.parametrize(
    ("low", "high", "stage"),
    [(0, 6, "0-6m"), (0, 7, None), (12, 36, "1-3y"), (72, 168, "6-14y"), (168, 200, None), (6, 6, None), (9, 8, None)],
)
def test_a_stage_includes_its_lower_bound_and_excludes_its_upper_bound(low: int, high: int, stage: str | None) -> None:
    assert find_age_stage(low, high) == stage


def test_beibei_times_are_times_of_china(tmp_path: Path) -> None:
    by_id = products(imported("beibei_zh", tmp_path))
    assert by_id["1"]["updated_at"] == datetime(2018, 10, 21, 15, 8, 22, tzinfo=UTC)
    assert (by_id["1"]["title"], by_id["1"]["price"], by_id["3"]["image"]) == ("女童连衣裙", 59.0, None)


def test_beibei_gives_no_category_label_to_a_product_in_a_wrong_category(tmp_path: Path) -> None:
    output = imported("beibei_zh", tmp_path)
    assert ("87", "category", "童鞋") not in labels(output)
    assert products(output)["87"]["category"] == "童鞋"
    assert refused(output) == [("3", beibei_zh.MISSING_IMAGE, "gone.jpg"), ("87", beibei_zh.WRONG_CATEGORY, "童鞋")]


def test_beibei_products_with_one_title_are_one_group(tmp_path: Path) -> None:
    groups = {row["product_id"]: row["group"] for row in rows(imported("beibei_zh", tmp_path), "labels")}
    assert groups["1"] == groups["2"] != groups["3"]


@pytest.mark.parametrize(
    ("title", "gender"),
    [
        ("男童板鞋", "boy"),
        ("女宝宝开衫", "girl"),
        ("男女童卫衣", "unisex"),
        ("拉拉裤（男女通用)", "unisex"),
        ("女装毛衣 男女情侣", None),
    ],
)
def test_beibei_reads_a_childs_gender_from_the_title(title: str, gender: str | None) -> None:
    assert beibei_zh.parse_child_gender(title) == gender


@pytest.mark.parametrize(
    ("title", "stage"),
    [
        ("奶粉 3段（1-3岁）", "1-3y"),
        ("奶粉3段（9-12个月）", "6-12m"),
        ("3段幼儿配方奶粉", "1-3y"),
        ("奶粉1段/2段/3段", None),
        ("奶粉5段（2岁以上）", None),
        ("童鞋1-7岁", None),
        ("袜子0-1-3-5-7-9-12岁", None),
        ("内裤1/3/5岁", None),
        ("连衣裙", None),
    ],
)
def test_beibei_reads_an_age_from_the_title_only_within_one_stage(title: str, stage: str | None) -> None:
    assert beibei_zh.parse_child_age(title) == stage


def test_grocery_photo_has_no_title_and_the_shops_image_has_one(tmp_path: Path) -> None:
    by_id = products(imported("grocery", tmp_path))
    gala, photo = by_id["iconic/Royal-Gala"], by_id["train/Royal-Gala_001"]
    assert (gala["title"], gala["description"], gala["category"]) == (
        "Apple Royal Gala Class 1",
        "Sweet and red.",
        "Fruit>Apple",
    )
    assert (photo["title"], photo["category"], Path(photo["image"]).suffix) == (None, None, ".webp")
    assert (by_id["iconic/Kiwi"]["title"], by_id["iconic/Kiwi"]["description"]) == ("Kiwi", None)


def test_grocery_photos_are_labelled_and_paired_in_the_sets_own_split(tmp_path: Path) -> None:
    output = imported("grocery", tmp_path)
    assert {(row["product_id"], row["value"], row["split"]) for row in rows(output, "labels")} == {
        ("train/Royal-Gala_001", "Fruit>Apple", "train"),
        ("train/Kiwi_001", "Fruit>Kiwi", "train"),
        ("test/Kiwi_001", "Fruit>Kiwi", "test"),
    }
    assert {"left": "test/Kiwi_001", "right": "iconic/Kiwi", "same": 1, "split": "test"} in rows(output, "pairs")
    assert [(row, reason) for row, reason, _ in refused(output)] == [
        ("train line 3", grocery.MISSING_IMAGE),
        ("train line 4", grocery.UNKNOWN_CLASS),
        ("train line 5", grocery.INVALID_LINE),
    ]


def test_movielens_rating_of_four_is_a_click_and_no_column_reveals_the_rating(tmp_path: Path) -> None:
    impressions = rows(imported("movielens", tmp_path), "impressions")
    assert [(row["impression_id"], row["clicked"]) for row in impressions] == [("1-10", 1), ("1-20", 0), ("2-10", 1)]
    assert impressions[0]["event_timestamp"] == datetime.fromtimestamp(1_000_000_200, UTC)
    assert set(impressions[0]) == {*schema.IMPRESSIONS.names, "child_age_months", "child_gender"}


def test_movielens_film_starts_at_its_first_rating_so_no_impression_precedes_it(tmp_path: Path) -> None:
    output = imported("movielens", tmp_path)
    since = {name: row["updated_at"] for name, row in products(output).items()}
    assert since["10"] == datetime.fromtimestamp(1_000_000_100, UTC)
    assert since["30"] == datetime.fromtimestamp(1_000_000_300, UTC)
    assert all(since[row["product_id"]] <= row["event_timestamp"] for row in rows(output, "impressions"))
    assert [row["category"] for row in products(output).values()] == ["Comedy|Drama", None, "Drama"]


def test_movielens_reports_every_refused_rating(tmp_path: Path) -> None:
    assert refused(imported("movielens", tmp_path)) == [
        ("row 2", movielens.UNNAMED_COLUMN, "3.45"),
        ("2-20", movielens.INVALID_RATING, "9"),
        ("3-20", movielens.INVALID_TIMESTAMP, None),
        ("3-99", movielens.UNKNOWN_FILM, "99"),
        ("30", movielens.NEVER_RATED, "30"),
    ]


def test_mum_baby_purchase_has_the_childs_age_on_its_day(tmp_path: Path) -> None:
    impressions = rows(imported("mum_baby", tmp_path), "impressions")
    assert [row["product_id"] for row in impressions] == ["11", "12", "13", "14"]
    assert impressions[0]["child_age_months"] == pytest.approx(366 / 30.4375)
    assert impressions[0]["event_timestamp"] == datetime(2012, 12, 31, 16, tzinfo=UTC)
    assert (impressions[0]["child_gender"], impressions[0]["amount"], impressions[0]["category"]) == (
        "girl",
        2,
        "28>210",
    )
    assert [row["child_age_months"] for row in impressions[1:]] == [None, None, None]


def test_mum_baby_reports_unborn_and_grown_children_invalid_dates_and_wholesale_amounts(tmp_path: Path) -> None:
    output = imported("mum_baby", tmp_path)
    assert refused(output) == [
        ("4", mum_baby.INVALID_BIRTHDAY, "20121399"),
        ("4", mum_baby.INVALID_GENDER, "7"),
        ("1", mum_baby.DUPLICATE_USER, "1"),
        ("9-17-20130231", mum_baby.INVALID_DAY, "20130231"),
        ("9-16-20130704", mum_baby.INVALID_AMOUNT, "0"),
        ("9-15-20130704", mum_baby.WHOLESALE, "10000"),
        ("2-12-20140501", mum_baby.UNBORN, "2014-06-01"),
        ("3-13-20120923", mum_baby.GROWN, "1984-06-16"),
    ]
    assert rows(output, "users")[0] == {"user_id": "1", "child_birthday": date(2012, 1, 1), "child_gender": "girl"}
    assert not (output / "products.parquet").exists()


def test_abt_buy_description_is_one_product_in_all_pairs_and_splits(tmp_path: Path) -> None:
    output = imported("abt_buy", tmp_path)
    by_id = products(output)
    assert sorted((row["title"], row["price"], row["description"]) for row in by_id.values() if row["price"]) == [
        ("acme lamp l1", 12.5, "a lamp")
    ]
    assert len(by_id) == 4
    pairs = rows(output, "pairs")
    assert len({pair["left"] for pair in pairs}) == 1
    assert [(by_id[pair["right"]]["title"], pair["same"], pair["split"]) for pair in pairs] == [
        ("lamp by acme", 1, "train"),
        ("bolt mug", 0, "train"),
        ("other", 0, "test"),
    ]
    assert refused(output) == [("train line 3", abt_buy.INVALID_LINE, "broken\t1")]


def test_muge_pictures_are_products_and_queries_name_their_true_images(tmp_path: Path) -> None:
    output = imported("muge", tmp_path)
    by_id = products(output)
    assert set(by_id) == {*map(str, (10, 11, 12, 20, 21, 22, 30, 31, 32)), "a1"}
    assert by_id["a1"]["title"] == "漂亮的裙子"
    assert by_id["10"]["title"] is None
    assert [(row["query"], row["product_id"], row["relevant"], row["split"]) for row in rows(output, "queries")] == [
        ("红色 连衣裙", "10", 1, "train"),
        ("红色 连衣裙", "11", 1, "train"),
        ("蓝色", "20", 1, "valid"),
    ]
    assert [(row["product_id"], row["caption"]) for row in rows(output, "captions")] == [
        ("a1", "漂亮的裙子"),
        ("a1", "裙子"),
    ]


def test_muge_reports_every_malformed_line_with_its_number(tmp_path: Path) -> None:
    lines = {(name, reason) for name, reason, _ in refused(imported("muge", tmp_path))}
    picture = "expected an image id, a tab and a picture in base64"
    assert lines == {
        *((f"MR_{split}_imgs.tsv line {number}", picture) for split in ("train", "valid", "test") for number in (4, 5)),
        ("MR_train_queries.jsonl line 2", "query_text is missing or blank"),
        ("IC_valid.jsonl line 2", "text is missing, or neither a text nor a list of texts"),
        ("4", muge.UNKNOWN_IMAGE),
    }


def test_muge_can_be_imported_one_split_at_a_time(tmp_path: Path) -> None:
    MAKERS["muge"](tmp_path / "from")
    import_dataset("muge", tmp_path / "from", tmp_path / "out", NOW, "test")
    assert set(products(tmp_path / "out")) == {"30", "31", "32"}
    assert not (tmp_path / "out" / "queries.parquet").exists()
    with pytest.raises(UsageError, match="abt_buy has no option for its splits"):
        import_dataset("abt_buy", tmp_path / "from", tmp_path / "out", NOW, "test")
