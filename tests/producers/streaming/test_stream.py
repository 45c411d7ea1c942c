"""Streamed messages are online at once, offline after the commit, and stored once however often they are delivered."""

import io
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from consumers.online import Status
from feature_repo.errors import VitrineError
from feature_repo.features.interest import Clicks
from feature_repo.offline import delta
from feature_repo.schema import LABELS, TIMESTAMP
from producers.behaviour import interest_digest, interest_rows
from producers.behaviour.interests import make_interests
from producers.behaviour.neighbours import make_neighbours
from producers.codes import codebook
from producers.codes.run import QualityGates, code_products
from producers.embeddings.run import embed_catalogue
from producers.encoders import load
from producers.streaming.loop import StreamCounts
from producers.streaming.product_rows import split_repeats
from producers.streaming.source import StreamMessage
from producers.tags.run import tag_products
from tests.producers.streaming import running
from tests.producers.streaming.running import BEGAN, PREFIX, TITLES, Shop, _now, stream_pending

OPEN = QualityGates(1.0, 0.0, 1.0)


def table(shop: Shop, name: str) -> list[dict]:
    return delta.read(shop.settings.table(name)).sort_by([("event_timestamp", "ascending")]).to_pylist()


def test_a_product_has_vectors_online_before_the_first_commit(shop: Shop) -> None:
    shop.send_product(1)
    with shop.stream(commit_seconds=60.0) as stream:
        turns = iter([False, False, True])
        committed = []
        rows = stream.writer
        commit = rows.commit
        rows.commit = lambda: committed.append(online(shop, "p1")) or commit()  # type: ignore[method-assign]
        stream.run(turns.__next__)
    assert committed == [Status.PRESENT]
    (row,) = table(shop, "product_embedding")
    model = load(str(shop.encoder))
    np.testing.assert_allclose(row["text_vector"], model.encode_texts([TITLES[1] * 2])[0], atol=1e-5)
    (waited,) = table(shop, "product_first_feature")
    assert 0 < waited["seconds"] < 60


def test_rows_of_a_stream_whose_clock_is_behind_are_created_later_by_its_delay(shop: Shop) -> None:
    delay = timedelta(minutes=30)
    assert abs(shop.source().read_clock() - _now()) < timedelta(minutes=1)
    shop.send_product(1)
    with shop.stream() as opened:
        stream = replace(opened, clock=lambda: _now() + delay, clock_delay=delay)
        stream.run(lambda: shop.left() == stream_pending(shop))
    assert shop.left() == 0
    for name in ("product_catalogue", "product_embedding"):
        (row,) = table(shop, name)
        assert abs(row["created_timestamp"] - delay - _now()) < timedelta(minutes=1)
    (waited,) = table(shop, "product_first_feature")
    assert 0 < waited["seconds"] < 60


def online(shop: Shop, product: str) -> int:
    with shop.reader() as reader:
        return int(reader.fetch("product_embedding", [product]).status[0])


def test_a_streamed_product_has_the_same_rows_as_from_the_batch_commands(shop: Shop) -> None:
    for number in range(60):
        shop.send_product(number)
    shop.process_all()
    code_products(shop.settings, encoder_version=None, levels=2, size=4, retrain=False, gates=OPEN, seed=0, now=_now())
    for number in range(60, 80):
        shop.send_product(number)
    counts = shop.process_all()
    assert counts.added == dict.fromkeys(
        ("product_catalogue", "product_embedding", "product_codes", "product_first_feature"), 20
    )
    again = embed_catalogue(shop.settings, str(shop.encoder), now=_now(), progress=lambda *_: None)
    assert (again.encoded, again.existing) == (0, 80)
    coded = code_products(
        shop.settings, encoder_version=None, levels=2, size=4, retrain=False, gates=OPEN, seed=0, now=_now()
    )
    assert (coded.added, coded.known) == (0, 80)
    book = codebook.load_newest(shop.settings, coded.encoder_version)
    assert book is not None
    vectors = np.array([row["fused_vector"] for row in table(shop, "product_embedding")], np.float32)
    np.testing.assert_array_equal(book.encode(vectors)[0], [row["codes"] for row in table(shop, "product_codes")])


def test_streamed_clicks_give_the_same_versions_as_updating_the_interest_click_by_click(shop: Shop) -> None:
    for number in range(20):
        shop.send_product(number)
    clicked = [3, 3, 7, 99, 1]
    for second, number in enumerate(clicked):
        at = (BEGAN + timedelta(days=2, seconds=second)).isoformat()
        shop.send_click(number, user_id="u", event_timestamp=at)
        if second == 2:
            shop.process_all()  # the next run reads the user's state from the table
    counts = shop.process_all()
    assert counts.messages == 2
    vectors = {row["product_id"]: row["fused_vector"] for row in table(shop, "product_embedding")}
    state = None
    for second, number in enumerate(clicked):
        time = int((BEGAN + timedelta(days=2, seconds=second)).timestamp() * 1e6)
        vector = np.array([vectors.get(f"p{number}", [np.nan] * len(vectors["p1"]))], np.float32)
        unknown = np.full((1, 5), np.nan, np.float32), np.full((1, 3), np.nan, np.float32)
        state = interest_digest.update_interest(state, f"p{number}", Clicks(vector, *unknown, np.array([time])))
    assert state is not None
    rows = table(shop, "user_interest")
    assert [row["clicks"] for row in rows] == [1, 2, 3, 4, 5]
    wanted = interest_rows.build_row(
        "u", state, rows[-1]["encoder_version"], rows[-1]["created_timestamp"]
    ).to_pylist()[0]
    assert rows[-1] == wanted
    with shop.reader() as reader:
        block = reader.fetch("user_interest", ["u"])
        assert block.values["recent_products"][0].tolist() == [f"p{number}" for number in reversed(clicked)]

    def add_from_log(products: list[int]) -> int:
        times = [BEGAN + timedelta(days=2, seconds=second) for second in range(len(products))]
        log = {
            "impression_id": [f"i{second}" for second in range(len(products))],
            "user_id": ["u"] * len(products),
            "product_id": [f"p{number}" for number in products],
            "event_timestamp": pa.array(times, TIMESTAMP),
            "clicked": [1] * len(products),
        }
        file = shop.settings.file.parent / "log.parquet"
        pq.write_table(pa.table(log), file)
        now = rows[-1]["created_timestamp"] + timedelta(hours=1)
        return make_interests(
            shop.settings, file, encoder_version=None, recompute=False, now=now, progress=lambda done, total: None
        ).added

    assert add_from_log(clicked) == 0  # the digests of the stream are those of the whole log
    assert add_from_log([3, 1, 7, 99, 1]) == 4


def test_an_encoder_that_differs_from_the_newest_vectors_is_refused_unless_accepted(shop: Shop) -> None:
    shop.send_product(1)
    shop.process_all()
    (before,) = table(shop, "product_embedding")
    other = shop.settings.file.parent / "other"
    shutil.copytree(shop.encoder, other)
    (other / "vocab.txt").write_text("another")
    shop.send_product(2)
    message = rf"newest vectors are of {before['encoder_version']}, the stream's would be of other@.*--accept-changed"
    with pytest.raises(VitrineError, match=message):
        shop.process_all(encoder=str(other))
    assert shop.process_all(encoder=str(other), accept_changed=True).added["product_embedding"] == 1
    shop.send_product(3)
    assert shop.process_all(encoder=str(other)).added["product_embedding"] == 1
    with pytest.raises(VitrineError, match="of other@"):
        shop.process_all()


def test_messages_that_are_sent_again_change_nothing(shop: Shop) -> None:
    for _ in range(2):
        for number in range(10):
            shop.send_product(number)
            shop.send_click(number)
    first = shop.process_all()
    before = {name: table(shop, name) for name in ("product_embedding", "user_interest")}
    for number in range(10):
        shop.send_product(number)
        shop.send_click(number)
    second = shop.process_all()
    assert first.added["product_embedding"] == first.added["user_interest"] == 10
    assert second.added == dict.fromkeys(second.added, 0)
    assert {name: table(shop, name) for name in before} == before


def test_an_invalid_message_is_a_dead_letter_and_the_others_are_processed(shop: Shop) -> None:
    shop.send_product(1)
    shop.send_product(2, updated_at="yesterday")
    shop.send_product(3, title="")
    shop.send_product(4, title=b"\xff\xfe")
    shop.send_product(5, product_id="")
    shop.redis.xadd(f"{PREFIX}:products", {"nothing": "at all"})
    shop.send_click(1, event_timestamp=f"{BEGAN + timedelta(days=1):%Y-%m-%d %H:%M:%S}+00")
    shop.send_click(2, event_timestamp="2026-01-01T00:00:00")
    shop.send_click(3, user_id="")
    shop.send_click(4, user_id=" Guest")
    counts = shop.process_all()
    shop.send_click(1, user_id="u1", event_timestamp=BEGAN.isoformat())
    later = shop.process_all()
    assert [row["product_id"] for row in table(shop, "product_embedding")] == ["p1"]
    reasons = [letter[b"reason"].decode() for letter in shop.dead()]
    assert len(reasons) == counts.dead_letters.total() + later.dead_letters.total() == 9
    wanted = (
        "not UTF-8",
        "neither a title",
        "product id",
        "cannot be parsed",
        "has no time zone",
        "user_id",
        "visitors",
    )
    for fragment in wanted:
        assert any(fragment in reason for reason in reasons), fragment
    assert reasons[-1].startswith("earlier than the user's newest click")
    assert any(letter.get(b"field:updated_at") == b"yesterday" for letter in shop.dead())
    assert shop.left() == 0


def test_an_invalid_message_of_a_killed_process_is_a_dead_letter_and_the_others_are_processed(shop: Shop) -> None:
    shop.send_product(1)
    shop.redis.xadd(f"{PREFIX}:products", {"title": "no id"})
    shop.send_product(2, product_id=b"\xff\xfe")
    shop.deliver()
    counts = shop.process_all()
    assert (counts.messages, counts.redelivered, counts.dead_letters.total()) == (3, 3, 2)
    assert [row["product_id"] for row in table(shop, "product_embedding")] == ["p1"]
    assert shop.left() == 0


def test_a_product_that_raises_an_error_is_rejected_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from producers.streaming import product_rows

    embed = product_rows.encode_chunk

    def breaks(rows, *more, **named):  # type: ignore[no-untyped-def]
        if "p2" in rows["product_id"].to_pylist():
            raise ZeroDivisionError("on this product")
        return embed(rows, *more, **named)

    monkeypatch.setattr(product_rows, "encode_chunk", breaks)
    for number in range(4):
        shop.send_product(number)
    counts = shop.process_all()
    assert counts.dead_letters == {"ZeroDivisionError: on this product": 1}
    assert {row["product_id"] for row in table(shop, "product_embedding")} == {"p0", "p1", "p3"}


def test_a_click_that_raises_an_error_is_rejected_alone_and_changes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = interest_rows.build_row

    def breaks(user, state, *more):  # type: ignore[no-untyped-def]
        if state.products[0] == "p2":
            raise ZeroDivisionError("on this click")
        return row(user, state, *more)

    monkeypatch.setattr(interest_rows, "build_row", breaks)
    for number in (1, 2, 3):
        shop.send_click(number, user_id="u")
    counts = shop.process_all()
    assert counts.dead_letters == {"ZeroDivisionError: on this click": 1}
    assert table(shop, "user_interest")[-1]["recent_products"] == ["p3", "p1"]


def test_timestamps_outside_the_calendar_are_dead_letters(shop: Shop) -> None:
    shop.send_click(1, event_timestamp="0001-01-01T00:00:00+23:59")
    shop.send_click(2, event_timestamp="0001-01-01T00:00:00Z")
    shop.send_click(3, event_timestamp="9999-12-31T23:59:59-23:59")
    for beyond in ("300000000000000-0", "18446744073709551610-0"):  # milliseconds of the year 11476, and above int64
        shop.send_click(4, sent_as=beyond)
        shop.send_product(4, sent_as=beyond)
    shop.process_all()
    reasons = sorted(letter[b"reason"].decode() for letter in shop.dead())
    assert reasons[:2] == ["event_timestamp is before the year 1", "event_timestamp is in the future"]
    assert len(reasons) == 6
    assert all(reason.startswith("the message id is not a timestamp") for reason in reasons[2:])
    assert [row["recent_products"] for row in table(shop, "user_interest")] == [["p2"]]


def test_an_image_can_be_sent_as_bytes_and_an_unusable_one_is_quarantined(shop: Shop) -> None:
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(image, "PNG")
    shop.send_product(1, image_bytes=image.getvalue())
    shop.send_product(2, image_bytes=b"no image")
    palette = io.BytesIO()
    Image.new("P", (40, 30)).save(palette, "PNG")
    shop.send_product(3, image_bytes=palette.getvalue().replace(b"PLTE", b"pLTE"))  # AssertionError in Pillow
    counts = shop.process_all()
    rows = {row["product_id"]: row for row in table(shop, "product_embedding")}
    assert rows["p1"]["has_image"]
    for unusable in ("p2", "p3"):
        assert not rows[unusable]["has_image"]
        assert rows[unusable]["text_vector"] is not None
    assert counts.quarantined.total() == 2


def test_two_versions_of_a_product_in_one_batch_are_both_stored_and_the_newer_is_online(shop: Shop) -> None:
    newer = (BEGAN + timedelta(days=1)).isoformat()
    shop.send_product(1, title=TITLES[0], updated_at=newer)
    shop.send_product(1)
    counts: StreamCounts = shop.process_all()
    assert counts.added["product_catalogue"] == 2
    with shop.reader() as reader:
        block = reader.fetch("product_embedding", ["p1"])
        assert block.event_timestamp[0] == np.datetime64("2026-01-02")
    assert pc.count_distinct(delta.read(shop.settings.table("product_catalogue"))["event_timestamp"]).as_py() == 2


def test_a_new_product_has_the_neighbour_features_of_the_batch_command(shop: Shop) -> None:
    for number in range(30):
        shop.send_product(number)
    shop.process_all()
    late, log = BEGAN + timedelta(days=10, hours=1), shop.settings.file.parent / "log.parquet"
    shown = [
        (f"p{number % 30}", BEGAN + timedelta(days=2, seconds=number), int(number % 4 == 0)) for number in range(90)
    ]
    shown.append(("a stranger", late + timedelta(hours=1), 0))  # so that the log includes the day of the new products
    names = ("product_id", "event_timestamp", "clicked")
    columns = dict(zip(names, map(list, zip(*shown, strict=True)), strict=True))
    ids = [f"i{number}" for number in range(len(shown))]
    pq.write_table(pa.table({"impression_id": ids, "user_id": ["u"] * len(ids), **columns}), log)
    for number in range(30, 34):
        shop.send_product(number, updated_at=late.isoformat())
    counts = shop.process_all(impressions=log, top_k=5)
    assert counts.added["product_neighbours"] == 4
    streamed = {row["product_id"]: row for row in table(shop, "product_neighbours")}
    assert streamed["p30"]["neighbours"] == 5
    shutil.rmtree(shop.settings.table("product_neighbours"))
    options = {
        "encoder_version": None,
        "interval": timedelta(days=1),
        "top_k": 5,
        "now": _now(),
        "progress": lambda *_: None,
    }
    make_neighbours(shop.settings, log, **options)
    batch = {row["product_id"]: row for row in table(shop, "product_neighbours") if row["event_timestamp"] == late}
    for product, row in streamed.items():
        for name in ("neighbour_click_rate", "neighbour_impressions", "neighbour_price", "neighbour_similarity"):
            assert row[name] == pytest.approx(batch[product][name], abs=1e-6), name


def test_a_streamed_product_has_the_same_tags_as_from_the_batch_command(shop: Shop) -> None:
    for number in range(60):
        shop.send_product(number)
    shop.process_all()
    labels = shop.settings.file.parent / "labels.parquet"
    genders = ("girl", "boy", "girl", "girl", "unisex")  # of TITLES
    label_rows = [(f"p{number}", "child_gender", genders[number % 5]) for number in range(60)]
    pq.write_table(pa.table(list(map(list, zip(*label_rows, strict=True))), schema=LABELS), labels)
    for number in range(60, 80):
        shop.send_product(number)
    counts = shop.process_all(labels=labels, abstain=0.4)
    assert counts.added["product_tags"] == 20
    streamed = {row["product_id"]: row for row in table(shop, "product_tags")}
    with shop.reader() as reader:
        block = reader.fetch("product_tags", sorted(streamed))
        assert block.values["child_gender"].tolist() == [
            streamed[product]["child_gender"] for product in sorted(streamed)
        ]
    shutil.rmtree(shop.settings.table("product_tags"))
    tag_products(shop.settings, labels, encoder_version=None, abstain=0.4, now=_now())
    batch = {row["product_id"]: row for row in table(shop, "product_tags")}
    assert {row["child_gender"] for row in streamed.values()} >= {"girl", "boy"}
    for product, row in streamed.items():
        wanted = batch[product]
        assert row["child_gender_distribution"] == pytest.approx(wanted["child_gender_distribution"], abs=1e-5)
        for name in ("child_age", "child_gender", "category", "tagger_version", "encoder_version", "event_timestamp"):
            assert row[name] == wanted[name], name


def test_messages_of_ids_that_look_equal_are_of_one_product() -> None:
    ids = ["p1", "p1 ", "p2", "\ufeffp1"]
    messages = [
        StreamMessage("products", str(number), {"product_id": name.encode()}, 0) for number, name in enumerate(ids)
    ]
    assert [[message.id for message in group] for group in split_repeats(messages)] == [["0", "2"], ["1"], ["3"]]


def test_a_stream_whose_store_loses_its_data_registers_the_views_again(
    tmp_path: Path, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = running.make(tmp_path, shop.server, shop.encoder)
    shop.send_product(1)
    lost: list[int] = []

    def lose() -> bool:
        if online(shop, "p1") == Status.PRESENT and not lost:
            lost.append(shop.redis.delete(*(key for key in shop.redis.scan_iter() if not key.startswith(b"shop:"))))
            shop.send_product(2)
        return len(lost) > 0 and shop.left() == stream_pending(shop)

    with shop.stream(commit_seconds=0.0) as stream:
        stream.run(lose)
    assert lost
    assert "lost its data; registered again: product_caption," in caplog.text
    with shop.reader() as reader:
        reader.ping()
        assert "ranking" in reader.services()
        assert reader.fetch("product_embedding", ["p1", "p2"]).status.tolist() == [Status.ABSENT, Status.PRESENT]
