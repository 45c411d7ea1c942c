"""Tests that every online store must pass.

The test module of a store inherits `StoreSuite` and has a fixture `store`, an empty store. `get_raw` and `put_raw`
bypass the store's methods: otherwise an error that `read` and `write` share would stay hidden.
"""

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest

from feature_repo.online.encode import encode_rows
from feature_repo.online.row_format import Layout

EMPTY = Layout(())


def make_row(event_us: int, created_us: int = 0) -> bytes:
    """Return a packed row without features."""
    return encode_rows(EMPTY, {}, np.array([event_us]), np.array([created_us]), {})[0]


class StoreSuite:
    """The contract of `Store`."""

    def get_raw(self, store: Any, key: bytes) -> bytes | None:
        raise NotImplementedError

    def put_raw(self, store: Any, key: bytes, value: bytes) -> None:
        raise NotImplementedError

    def test_a_row_is_stored_and_returned_byte_by_byte(self, store: Any) -> None:
        store.write([b"k"], [make_row(1)], 0)
        assert self.get_raw(store, b"k") == make_row(1)
        self.put_raw(store, b"other", make_row(2))
        assert store.read([[b"other"]]) == [[make_row(2)]]
        assert store.get(b"other") == make_row(2)

    def test_values_come_in_the_order_of_the_keys_with_repeats_and_missing_keys(self, store: Any) -> None:
        keys = [b"k%d" % i for i in range(20)]
        rows = [make_row(i) for i in range(20)]
        assert store.write(keys, rows, 0) == 20
        groups = [keys[::-1], [], [b"none", b"k3", b"none", b"k3"], [b"k1"]]
        expected = [rows[::-1], [], [None, rows[3], None, rows[3]], [rows[1]]]
        assert store.read(groups) == expected
        assert store.read([]) == []
        assert asyncio.run(store.read_async(groups)) == expected

    def test_a_pipeline_returns_replies_in_the_order_of_the_requests(self, store: Any) -> None:
        keys = [b"k%d" % i for i in range(20)]
        store.write(keys, [make_row(i) for i in range(20)], 0)
        with store.pipeline() as pipeline:
            pipeline.send([b"k7"])
            pipeline.send([])
            pipeline.send(keys)
            assert pipeline.receive() == [make_row(7)]
            pipeline.send([b"none", b"k3", b"k3"])
            assert pipeline.receive() == []
            assert pipeline.receive() == [make_row(i) for i in range(20)]
            assert pipeline.receive() == [None, make_row(3), make_row(3)]

    @pytest.mark.parametrize("unit", [1, 2**20, 2**31, 2**32, 2**45, -(2**20), -(2**32), -(2**45)])
    def test_the_newer_row_stays_in_any_write_order(self, store: Any, unit: int) -> None:
        """With timestamps that need more than 32 bits, and negative ones."""
        for (event, created), put in [
            ((5, 5), 1),
            ((4, 9), 0),
            ((5, 4), 0),
            ((5, 5), 1),
            ((5, 6), 1),
            ((6, -9), 1),
            ((5, 7), 0),
        ]:
            shift = min(unit, 0)
            row = make_row(event * abs(unit) + shift, created * abs(unit) + shift)
            assert store.write([b"k"], [row], 0) == put, (event, created)
            if put:
                newest = row
            assert self.get_raw(store, b"k") == newest

    def test_rows_are_written_together_where_some_are_older(self, store: Any) -> None:
        keys = [b"k%d" % i for i in range(100)]
        assert store.write(keys, [make_row(i) for i in range(100)], 0) == 100
        assert asyncio.run(store.write_async(keys, [make_row(i - i % 2) for i in range(100)], 0)) == 50
        assert store.read([keys]) == [[make_row(i) for i in range(100)]]

    def test_a_value_is_swapped_only_if_it_is_the_old_one(self, store: Any) -> None:
        assert store.compare_and_swap(b"k", None, b"1")
        assert not store.compare_and_swap(b"k", None, b"2")
        assert self.get_raw(store, b"k") == b"1"
        assert store.compare_and_swap(b"k", b"1", b"3")
        assert store.get(b"k") == b"3"
        assert store.compare_and_swap(b"k", b"3", None)
        assert self.get_raw(store, b"k") is None

    def test_delete_ignores_missing_keys_and_counts_the_others(self, store: Any) -> None:
        store.write([b"a", b"b"], [make_row(1)] * 2, 0)
        assert store.delete([b"a", b"none"]) == 1
        assert store.delete([]) == 0
        assert (self.get_raw(store, b"a"), self.get_raw(store, b"b")) == (None, make_row(1))

    def test_a_prefix_is_deleted_and_other_keys_stay(self, store: Any) -> None:
        keys = [b"a-_%d" % i for i in range(100)] + [b"b", b"Z", b"a-"]
        store.write(keys, [make_row(1)] * len(keys), 0)
        store.delete_prefix(b"a-_")
        assert store.read([keys])[0] == [None] * 100 + [make_row(1)] * 3
        store.delete_prefix(b"zz")

    def test_keys_are_listed_by_prefix_and_predicate(self, store: Any) -> None:
        keys = [b"a%d" % i for i in range(10)] + [b"b"]
        store.write(keys, [make_row(1)] * len(keys), 0)
        assert sorted(store.list_keys(b"a", lambda key: key > b"a6")) == [b"a7", b"a8", b"a9"]
        assert store.list_keys(b"zz", lambda key: True) == []

    def test_a_scan_yields_each_key_of_its_prefix_in_small_steps(self, store: Any) -> None:
        keys = [b"a%02d" % i for i in range(10)] + [b"a01\0", b"b", b"Z"]
        store.write(keys, [make_row(1)] * len(keys), 0)
        steps = list(store.scan_keys(b"a"))
        assert {key for step in steps for key in step} == {key for key in keys if key.startswith(b"a")}
        assert max(map(len, steps)) <= 3
        assert list(store.scan_keys(b"zz")) == []

    def test_a_pickled_copy_reads_the_same_store(self, store: Any) -> None:
        store.write([b"k"], [make_row(1)], 0)
        copy = pickle.loads(pickle.dumps(store))
        assert copy.read([[b"k"]]) == [[make_row(1)]]
        assert copy.is_local == store.is_local
