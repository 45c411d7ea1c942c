"""A streaming process that is killed repeatedly: every product is stored online and offline exactly once."""

import itertools
import time
from collections import Counter

import numpy as np
import pytest

from consumers.online import Status
from feature_repo.offline import delta
from producers.streaming.row_writer import KEYS
from tests.producers.streaming import running
from tests.producers.streaming.running import Shop


def stream_and_kill(shop: Shop, products: int, kills: int, timeout_seconds: float) -> None:
    """Send products and clicks in parts, kill the process that reads each part, then let a last process finish."""
    rng = np.random.default_rng(0)
    bounds = np.linspace(0, products, kills + 1).astype(int).tolist()
    for begin, end in itertools.pairwise(bounds):
        for number in range(begin, end):
            shop.send_product(number)
            shop.send_click(number)
        process = running.start(shop, batch_size=16, commit_seconds=0.2)
        before = running.stream_pending(shop), shop.left()
        deadline = time.monotonic() + timeout_seconds
        while (running.stream_pending(shop), shop.left()) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.4)))
        process.kill()
        process.join()
    last = running.start(shop, batch_size=64, commit_seconds=1.0)
    deadline = time.monotonic() + timeout_seconds
    while shop.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    last.terminate()
    last.join(30)
    assert last.exitcode == 0
    assert shop.left() == 0


def check(shop: Shop, products: int) -> None:
    """Check that everything that was sent is stored exactly once."""
    products_sent = {f"p{number}" for number in range(products)}
    for table in ("product_catalogue", "product_embedding", "product_first_feature"):
        stored = Counter(delta.read(shop.settings.table(table), ["product_id"])["product_id"].to_pylist())
        assert stored == Counter(products_sent), table
    clicks = delta.read(shop.settings.table("user_interest"), list(KEYS["user_interest"]))
    assert sorted(clicks["clicks"].to_pylist()) == sorted(
        count for user in range(7) for count in range(1, len(range(user, products, 7)) + 1)
    )
    with shop.reader() as reader:
        assert (reader.fetch("product_embedding", sorted(products_sent)).status == Status.PRESENT).all()
        online = reader.fetch("user_interest", [f"u{user}" for user in range(7)])
        assert online.values["clicks"].tolist() == [len(range(user, products, 7)) for user in range(7)]
    assert shop.dead() == []


def test_a_process_that_is_killed_twice_loses_and_duplicates_nothing(shop: Shop) -> None:
    stream_and_kill(shop, products=300, kills=2, timeout_seconds=60)
    check(shop, 300)


@pytest.mark.slow
def test_a_process_that_is_killed_20_times_in_10_000_messages_loses_and_duplicates_nothing(shop: Shop) -> None:
    stream_and_kill(shop, products=5_000, kills=20, timeout_seconds=120)
    check(shop, 5_000)
