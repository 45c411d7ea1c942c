"""Invented data sets of a few rows in the formats of the real ones."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def write_image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (200, 30, 40)).save(file)


def table(file: Path, header: Sequence[str], *rows: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def flipkart(folder: Path) -> None:
    def specifications(**stated: str) -> str:
        pairs = ", ".join(f'{{"key"=>"{key.replace("_", " ")}", "value"=>"{value}"}}' for key, value in stated.items())
        return f'{{"product_specification"=>[{pairs}]}}'

    header = [
        "uniq_id",
        "crawl_timestamp",
        "product_name",
        "product_category_tree",
        "retail_price",
        "discounted_price",
        "image",
        "description",
        "brand",
        "product_specifications",
    ]
    tree = '["Baby Care >> Hats >> Acme Hats >> Acme Red Hat (Re..."]'
    at = "2016-04-30 03:22:56 +0000"
    table(
        folder / "flipkart_com-ecommerce_sample_1050.csv",
        header,
        ["a", at, "Acme Red Hat", tree, 90, 60.5, "a.jpg", "a hat,\nred", "", specifications(Ideal_For="Baby Girl's")],
        ["b", at, "Bolt Mug", '["Kitchen"]', 20, "", "gone.jpg", "", "Bolt", ""],
        [
            "c",
            at,
            "Acme Hat",
            tree,
            9,
            9,
            "c.jpg",
            "",
            "",
            specifications(Ideal_For="Boys, Girls", Age_Group="3 - 6 month"),
        ],
        ["d", at, "Odd", "nonsense", 9, 9, "d.jpg", "", "", specifications(Ideal_For="Men, Boys")],
    )
    for name in "acd":
        write_image(folder / "images" / f"{name}.jpg")


def beibei(folder: Path) -> None:
    table(
        folder / "goods.csv",
        ["goods_id", "title", "image", "price", "add_time", "discount", "category"],
        [1, "女童连衣裙", "goods01.jpg", "59.00", "2018-10-21 23:08:22", 2, "童装"],
        [2, "女童连衣裙", "goods02.jpg", "69.00", "2018-10-21 23:08:22", 2, "童装"],
        [3, "幼儿奶粉（1-3岁）", "gone.jpg", "169.00", "2018-10-21 07:10:44", 3, "奶粉"],
        [87, "秋季女鞋", "goods87.jpg", "199.00", "2018-10-23 20:31:15", 2, "童鞋"],
    )
    for name in ("01", "02", "87"):
        write_image(folder / "images" / f"goods{name}.jpg")


def grocery(folder: Path) -> None:
    shop = "/iconic-images-and-descriptions/Fruit/Apple/Royal-Gala/Royal-Gala"
    kiwi = "/iconic-images-and-descriptions/Fruit/Kiwi/Kiwi"
    table(
        folder / "classes.csv",
        [
            "Class Name (str)",
            "Class ID (int)",
            "Coarse Class Name (str)",
            "Coarse Class ID (int)",
            "Iconic Image Path (str)",
            "Product Description Path (str)",
        ],
        ["Royal-Gala", 4, "Apple", 0, f"{shop}_Iconic.jpg", f"{shop}_Description.txt"],
        ["Kiwi", 7, "Kiwi", 3, f"{kiwi}_Iconic.jpg", f"{kiwi}_Description.txt"],
    )
    for name in (shop, kiwi):
        write_image(folder / f"{name[1:]}_Iconic.jpg")
    (folder / f"{shop[1:]}_Description.txt").write_text("Sweet and red.")
    (folder / f"{shop[1:]}_Information.txt").write_text("\ufeffTitle: Apple Royal Gala Class 1 \nCountry: Italy")
    (folder / "train.txt").write_text(
        "train/Fruit/Apple/Royal-Gala/Royal-Gala_001.jpg, 4, 0\ntrain/Fruit/Kiwi/Kiwi_001.jpg, 7, 3\n"
        "train/Fruit/Kiwi/Kiwi_002.jpg, 7, 3\ntrain/Fruit/Kiwi/Kiwi_001.jpg, 99, 3\nnot a line\n"
    )
    (folder / "val.txt").write_text("")
    (folder / "test.txt").write_text("test/Fruit/Kiwi/Kiwi_001.jpg, 7, 3\n")
    for path in (
        "train/Fruit/Apple/Royal-Gala/Royal-Gala_001",
        "train/Fruit/Kiwi/Kiwi_001",
        "test/Fruit/Kiwi/Kiwi_001",
    ):
        write_image(folder / f"{path}.webp")


def movielens(folder: Path) -> None:
    table(
        folder / "movies.csv",
        ["movieId", "title", "genres"],
        [10, "First Light (1990)", "Comedy|Drama"],
        [20, "Second, The (1991)", "(no genres listed)"],
        [30, "Never (1992)", "Drama"],
    )
    table(
        folder / "ratings.csv",
        ["userId", "movieId", "rating", "timestamp", "", "", "", ""],
        [1, 10, 4, 1_000_000_200, "", "", "", ""],
        [1, 20, 3.5, 1_000_000_300, "", 3.45, "", ""],
        [2, 10, 5, 1_000_000_100, "", "", "", ""],
        [2, 20, 9, 1_000_000_000, "", "", "", ""],
        [3, 99, 4, 1_000_000_000, "", "", "", ""],
        [3, 20, 4, "", "", "", "", ""],
    )


def mum_baby(folder: Path) -> None:
    table(
        folder / "tianchi_mum_baby.csv",
        ["user_id", "birthday", "gender"],
        [1, 20120101, 0],
        [2, 20140601, 1],
        [3, 19840616, 2],
        [4, 20121399, 7],
        [1, 20130101, 1],
    )
    table(
        folder / "tianchi_mum_baby_trade_history.csv",
        ["user_id", "auction_id", "category_2", "category_1", "buy_mount", "day"],
        [1, 11, 210, 28, 2, 20130101],
        [2, 12, 210, 28, 1, 20140501],
        [3, 13, 210, 28, 1, 20120923],
        [9, 14, 211, 38, 1, 20130704],
        [9, 15, 211, 38, 10000, 20130704],
        [9, 16, 211, 38, 0, 20130704],
        [9, 17, 211, 38, 1, 20130231],
    )


def abt_buy(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lamp = "COL name VAL acme lamp l1 COL description VAL a lamp COL price VAL 12.5 "
    (folder / "train.txt").write_text(
        f"{lamp}\tCOL name VAL lamp by acme COL description VAL  COL price VAL  \t1\n"
        f"{lamp}\tCOL name VAL bolt mug COL description VAL blue COL price VAL about 9 \t0\nbroken\t1\n"
    )
    (folder / "valid.txt").write_text("")
    (folder / "test.txt").write_text(f"{lamp}\tCOL name VAL other COL description VAL COL price VAL \t0\n")


def muge(folder: Path) -> None:
    """Three splits of retrieval, the test without answers, and captions of one split; each file has malformed lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, first in (("train", 10), ("valid", 20), ("test", 30)):
        pictures = [f"{first + number}\t{encode_picture(number)}" for number in range(3)]
        (folder / f"MR_{split}_imgs.tsv").write_text("\n".join([*pictures, "99\tno base64!", "98"]) + "\n")
    train = [{"query_id": 1, "query_text": "红色 连衣裙", "item_ids": [10, 11]}, {"query_id": 2, "query_text": " "}]
    write_lines(folder / "MR_train_queries.jsonl", *train)
    valid = [{"text_id": 3, "text": "蓝色", "image_ids": [20]}, {"text_id": 4, "text": "绿色", "image_ids": [777]}]
    write_lines(folder / "valid_texts.jsonl", *valid)
    write_lines(folder / "test_texts.jsonl", {"text_id": 5, "text": "白色"})
    (folder / "IC_valid.tsv").write_text(f"a1\t{encode_picture(7)}\n")
    captions = [{"image_id": "a1", "text": ["漂亮的裙子", "裙子"]}, {"image_id": "a2", "text": 3}]
    write_lines(folder / "IC_valid.jsonl", *captions)


def encode_picture(number: int) -> str:
    """Return a picture in URL-safe base64, as the set has it: another one for each number from 0 to 12."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (20 * number, 200, 250 - 20 * number)).save(stream, "PNG")
    return base64.urlsafe_b64encode(stream.getvalue()).decode()


def write_lines(file: Path, *rows: object) -> None:
    """Write one JSON value a line."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


MAKERS = {
    "flipkart_1050": flipkart,
    "beibei_zh": beibei,
    "grocery": grocery,
    "movielens": movielens,
    "mum_baby": mum_baby,
    "abt_buy": abt_buy,
    "muge": muge,
}
