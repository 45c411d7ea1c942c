"""Which ids of a log stand for nobody, and which for many people."""

import pyarrow as pa
import pytest

from feature_repo.offline.anonymous_users import GUEST_IDS, MIN_USERS, SharedUser, find_guests, find_shared_users


def users(**rows: int) -> pa.ChunkedArray:
    """Return a log's user ids, `uN` for `uN=rows`, in two chunks."""
    ids = [name.removeprefix("u") for name, count in rows.items() for _ in range(count)]
    return pa.chunked_array([ids[:3], ids[3:]], pa.string())


def test_null_blank_and_the_ids_of_guests_are_nobody() -> None:
    ids = [None, "", " \u3000", "Guest ", "NULL", *GUEST_IDS]
    others = ["u1", "0", "1", "-2", "guest1", "00000000-0000-0000-0000-000000000001"]
    found = find_guests(pa.chunked_array([ids[:2], [], [*ids[2:], *others]], pa.string()))
    assert found.tolist() == [True] * len(ids) + [False] * len(others)
    assert find_guests(pa.chunked_array([], pa.string())).tolist() == []


@pytest.mark.parametrize(("rows", "is_shared"), [(10, False), (11, True)])
def test_zero_is_nobody_if_it_has_more_than_twice_the_rows_of_every_other_user(rows: int, is_shared: bool) -> None:
    found = find_shared_users(users(u0=rows, u1=5, u2=3))
    assert found == ([SharedUser("0", rows)] if is_shared else [])


def test_zero_alone_is_a_user() -> None:
    assert find_shared_users(users(u0=10)) == []
    assert find_shared_users(users()) == []


def test_a_user_with_a_twentieth_of_the_log_and_twenty_times_the_median_is_shared() -> None:
    many = {f"u{number}x": 1 for number in range(MIN_USERS)}
    assert find_shared_users(users(**many, u1=20, u2=19)) == [SharedUser("1", 20)]
    assert find_shared_users(users(**dict(list(many.items())[2:]), u1=20)) == []  # too few users to speak of a share
    some = {f"u{number}x": 1 for number in range(1000)}
    assert find_shared_users(users(**some, u1=40)) == []  # less than a twentieth
    assert find_shared_users(users(**some, u1=60, u2=70)) == [SharedUser("2", 70), SharedUser("1", 60)]
