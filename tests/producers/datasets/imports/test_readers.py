"""What each set's reader makes of a few invented rows in the format of its set."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from feature_repo import schema
from producers.datasets.imports import abt_buy, beibei_zh, flipkart_1050, grocery, movielens, mum_baby
from producers.datasets.imports.ages import find_stage
from tests.producers.datasets.imports.outcome import imported, labels, products, refused, rows


def test_a_marketplace_product_keeps_its_title_path_of_kinds_and_lower_price(tmp_path: Path) -> None:
    made = products(imported("flipkart_1050", tmp_path))
    assert made["a"] == {
        "product_id": "a",
        "title": "Acme Red Hat",
        "image": str(tmp_path / "from" / "images" / "a.jpg"),
        "category": "Baby Care>Hats",
        "brand": None,
        "price": 60.5,
        "updated_at": datetime(2016, 4, 30, 3, 22, 56, tzinfo=UTC),
        "description": "a hat,\nred",
    }
    assert (made["b"]["price"], made["b"]["image"], made["b"]["category"]) == (20.0, None, "Kitchen")


def test_a_marketplace_labels_what_it_states_and_keeps_a_brands_shelf_together(tmp_path: Path) -> None:
    out = imported("flipkart_1050", tmp_path)
    assert labels(out) == {
        ("a", "category", "Baby Care"),
        ("b", "category", "Kitchen"),
        ("c", "category", "Baby Care"),
        ("a", "child_gender", "girl"),
        ("c", "child_gender", "unisex"),
        ("c", "child_age", "0-6m"),
    }
    assert {row["group"] for row in rows(out, "labels") if row["product_id"] in "ac"} == {"Acme Hats"}
    assert refused(out) == [("b", flipkart_1050.NO_PICTURE, "gone.jpg"), ("d", flipkart_1050.NO_TREE, "nonsense")]


@pytest.mark.parametrize(
    ("tree", "name", "brand", "kinds", "shelf"),
    [
        ("Watches >> Wrist Watches >> Maxima Wrist Watches", "Maxima 05", None, ["Watches", "Wrist Watches"], "Maxima"),
        ("Home >> Posters >> Mega Posters >> good-night (18...", "good-night", "MEGA", ["Home", "Posters"], "Mega"),
        ("Home >> Rugs >> M S Pink Rug (120 cm)", "M S Pink Rug", None, ["Home", "Rugs"], None),
        ("Home >> Rugs >> M S Pink R...", "M S Pink Rug", None, ["Home", "Rugs"], None),
    ],
)
def test_ends_a_path_of_kinds_where_the_brand_or_the_name_begins(
    tree: str, name: str, brand: str | None, kinds: list[str], shelf: str | None
) -> None:
    found, shelf_found = flipkart_1050.shelves(f'["{tree}"]', name, brand)
    assert found == kinds
    assert shelf_found == (shelf and f"{shelf} {kinds[-1]}")


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
def test_reads_a_childs_gender_unless_an_adult_is_meant_too(stated: str | None, gender: str | None) -> None:
    assert flipkart_1050.child_gender(stated) == gender


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
def test_reads_an_age_group_that_lies_within_one_stage(stated: str, stage: str | None) -> None:
    assert flipkart_1050.child_age(stated) == stage


@pytest.mark.parametrize(
    ("low", "high", "stage"),
    [(0, 6, "0-6m"), (0, 7, None), (12, 36, "1-3y"), (72, 168, "6-14y"), (168, 200, None), (6, 6, None), (9, 8, None)],
)
def test_a_stage_holds_its_lower_bound_and_ends_before_its_upper(low: int, high: int, stage: str | None) -> None:
    assert find_stage(low, high) == stage


def test_a_chinese_shops_times_are_those_of_china(tmp_path: Path) -> None:
    made = products(imported("beibei_zh", tmp_path))
    assert made["1"]["updated_at"] == datetime(2018, 10, 21, 15, 8, 22, tzinfo=UTC)
    assert (made["1"]["title"], made["1"]["price"], made["3"]["image"]) == ("女童连衣裙", 59.0, None)


def test_a_chinese_shop_gives_no_label_where_a_product_stands_in_a_wrong_category(tmp_path: Path) -> None:
    out = imported("beibei_zh", tmp_path)
    assert ("87", "category", "童鞋") not in labels(out)
    assert products(out)["87"]["category"] == "童鞋"
    assert refused(out) == [("3", beibei_zh.NO_PICTURE, "gone.jpg"), ("87", beibei_zh.WRONG_CATEGORY, "童鞋")]


def test_a_product_listed_twice_under_one_title_is_one_group(tmp_path: Path) -> None:
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
def test_reads_a_childs_gender_from_a_chinese_title(title: str, gender: str | None) -> None:
    assert beibei_zh.child_gender(title) == gender


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
def test_reads_an_age_from_a_chinese_title_only_where_it_lies_within_one_stage(title: str, stage: str | None) -> None:
    assert beibei_zh.child_age(title) == stage


def test_a_photo_is_a_product_without_title_and_the_shops_picture_one_with_all(tmp_path: Path) -> None:
    made = products(imported("grocery", tmp_path))
    gala, photo = made["iconic/Royal-Gala"], made["train/Royal-Gala_001"]
    assert (gala["title"], gala["description"], gala["category"]) == (
        "Apple Royal Gala Class 1",
        "Sweet and red.",
        "Fruit>Apple",
    )
    assert (photo["title"], photo["category"], Path(photo["image"]).suffix) == (None, None, ".webp")
    assert (made["iconic/Kiwi"]["title"], made["iconic/Kiwi"]["description"]) == ("Kiwi", None)


def test_photos_are_labelled_and_paired_with_the_shops_picture_in_the_sets_own_split(tmp_path: Path) -> None:
    out = imported("grocery", tmp_path)
    assert {(row["product_id"], row["value"], row["split"]) for row in rows(out, "labels")} == {
        ("train/Royal-Gala_001", "Fruit>Apple", "train"),
        ("train/Kiwi_001", "Fruit>Kiwi", "train"),
        ("test/Kiwi_001", "Fruit>Kiwi", "test"),
    }
    assert {"left": "test/Kiwi_001", "right": "iconic/Kiwi", "same": 1, "split": "test"} in rows(out, "pairs")
    assert [(row, reason) for row, reason, _ in refused(out)] == [
        ("train line 3", grocery.NO_PICTURE),
        ("train line 4", grocery.NO_CLASS),
        ("train line 5", grocery.NOT_A_LINE),
    ]


def test_a_rating_of_four_is_a_click_and_no_column_tells_the_rating(tmp_path: Path) -> None:
    found = rows(imported("movielens", tmp_path), "impressions")
    assert [(row["impression_id"], row["clicked"]) for row in found] == [("1-10", 1), ("1-20", 0), ("2-10", 1)]
    assert found[0]["event_timestamp"] == datetime.fromtimestamp(1_000_000_200, UTC)
    assert set(found[0]) == {*schema.IMPRESSIONS.names, "child_age_months", "child_gender"}


def test_a_film_begins_with_its_first_rating_so_that_no_impression_comes_before_it(tmp_path: Path) -> None:
    out = imported("movielens", tmp_path)
    since = {name: row["updated_at"] for name, row in products(out).items()}
    assert since["10"] == datetime.fromtimestamp(1_000_000_100, UTC)
    assert since["30"] == datetime.fromtimestamp(1_000_000_300, UTC)
    assert all(since[row["product_id"]] <= row["event_timestamp"] for row in rows(out, "impressions"))
    assert [row["category"] for row in products(out).values()] == ["Comedy|Drama", None, "Drama"]


def test_every_rating_that_is_left_out_is_named(tmp_path: Path) -> None:
    assert refused(imported("movielens", tmp_path)) == [
        ("row 2", movielens.STRAY, "3.45"),
        ("2-20", movielens.BAD_RATING, "9"),
        ("3-20", movielens.NO_TIME, None),
        ("3-99", movielens.NO_FILM, "99"),
        ("30", movielens.NEVER, "30"),
    ]


def test_a_purchase_knows_the_childs_age_of_its_day_and_not_of_today(tmp_path: Path) -> None:
    found = rows(imported("mum_baby", tmp_path), "impressions")
    assert [row["product_id"] for row in found] == ["11", "12", "13", "14"]
    assert found[0]["child_age_months"] == pytest.approx(366 / 30.4375)
    assert found[0]["event_timestamp"] == datetime(2012, 12, 31, 16, tzinfo=UTC)
    assert (found[0]["child_gender"], found[0]["amount"], found[0]["category"]) == ("girl", 2, "28>210")
    assert [row["child_age_months"] for row in found[1:]] == [None, None, None]


def test_unborn_and_grown_children_bad_dates_and_wholesale_amounts_are_named(tmp_path: Path) -> None:
    out = imported("mum_baby", tmp_path)
    assert refused(out) == [
        ("4", mum_baby.BAD_BIRTHDAY, "20121399"),
        ("4", mum_baby.BAD_GENDER, "7"),
        ("1", mum_baby.TWICE, "1"),
        ("9-17-20130231", mum_baby.BAD_DAY, "20130231"),
        ("9-16-20130704", mum_baby.BAD_AMOUNT, "0"),
        ("9-15-20130704", mum_baby.TOO_MANY, "10000"),
        ("2-12-20140501", mum_baby.UNBORN, "2014-06-01"),
        ("3-13-20120923", mum_baby.GROWN, "1984-06-16"),
    ]
    assert rows(out, "users")[0] == {"user_id": "1", "child_birthday": date(2012, 1, 1), "child_gender": "girl"}
    assert not (out / "products.parquet").exists()


def test_a_description_is_one_product_in_whatever_pairs_and_splits_it_stands(tmp_path: Path) -> None:
    out = imported("abt_buy", tmp_path)
    made = products(out)
    assert sorted((row["title"], row["price"], row["description"]) for row in made.values() if row["price"]) == [
        ("acme lamp l1", 12.5, "a lamp")
    ]
    assert len(made) == 4
    pairs = rows(out, "pairs")
    assert len({pair["left"] for pair in pairs}) == 1
    assert [(made[pair["right"]]["title"], pair["same"], pair["split"]) for pair in pairs] == [
        ("lamp by acme", 1, "train"),
        ("bolt mug", 0, "train"),
        ("other", 0, "test"),
    ]
    assert refused(out) == [("train line 3", abt_buy.NOT_A_LINE, "broken\t1")]
