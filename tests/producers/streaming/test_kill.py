"""A stream's process killed in its midst, again and again: every product is there, online and offline, and once."""

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


def stream_and_kill(shop: Shop, products: int, kills: int, patience: float) -> None:
    """Send the products and as many clicks in parts; kill the process that takes each part in, then let one end."""
    rng = np.random.default_rng(0)
    bounds = np.linspace(0, products, kills + 1).astype(int).tolist()
    for begin, end in itertools.pairwise(bounds):
        for number in range(begin, end):
            shop.send_product(number)
            shop.send_click(number)
        process = running.start(shop, batch=16, every=0.2)
        before = running.stream_pending(shop), shop.left()
        deadline = time.monotonic() + patience
        while (running.stream_pending(shop), shop.left()) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.4)))
        process.kill()
        process.join()
    last = running.start(shop, batch=64, every=1.0)
    deadline = time.monotonic() + patience
    while shop.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    last.terminate()
    last.join(30)
    assert last.exitcode == 0
    assert shop.left() == 0


def check(shop: Shop, products: int) -> None:
    """Everything that was sent is there once."""
    wanted = {f"p{number}" for number in range(products)}
    for table in ("product_catalogue", "product_embedding", "product_first_feature"):
        found = Counter(delta.read(shop.settings.table(table), ["product_id"])["product_id"].to_pylist())
        assert found == Counter(wanted), table
    clicks = delta.read(shop.settings.table("user_interest"), list(KEYS["user_interest"]))
    assert sorted(clicks["clicks"].to_pylist()) == sorted(
        count for user in range(7) for count in range(1, len(range(user, products, 7)) + 1)
    )
    with shop.reader() as reader:
        assert (reader.fetch("product_embedding", sorted(wanted)).status == Status.PRESENT).all()
        online = reader.fetch("user_interest", [f"u{user}" for user in range(7)])
        assert online.values["clicks"].tolist() == [len(range(user, products, 7)) for user in range(7)]
    assert shop.dead() == []


def test_a_process_killed_twice_loses_nothing_and_doubles_nothing(shop: Shop) -> None:
    stream_and_kill(shop, products=300, kills=2, patience=60)
    check(shop, 300)


@pytest.mark.slow
def test_a_process_killed_twenty_times_in_ten_thousand_messages_does_neither(shop: Shop) -> None:
    stream_and_kill(shop, products=5_000, kills=20, patience=120)
    check(shop, 5_000)
