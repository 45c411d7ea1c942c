"""A column that lost more than its share of values ends the command; one that lost less does not."""

from pathlib import Path

import pytest

from feature_repo.errors import InvalidInputError
from feature_repo.offline.lost_share import require_kept
from feature_repo.offline.quarantine import RejectedRow

FILE = Path("feed.csv")


def _lost(column: str, number: int, value: str | None = "x") -> list[RejectedRow]:
    return [RejectedRow(f"p{row}", column, f"no {column}", value) for row in range(number)]


def test_a_share_up_to_the_limit_is_accepted_and_a_larger_one_is_named():
    require_kept(FILE, _lost("price", 2), 10, 0.2)
    with pytest.raises(InvalidInputError, match=r"lost 3 of 10 values of `price` \(30%; no price, such as 'x' of p0\)"):
        require_kept(FILE, _lost("price", 3), 10, 0.2)
    require_kept(FILE, _lost("price", 10), 10, 1.0)
    require_kept(FILE, [], 0, 0.0)


def test_each_column_counts_by_itself_and_only_the_values_that_were_given():
    lost = _lost("price", 2) + _lost("image", 2, None) + _lost("updated_at", 1)
    with pytest.raises(InvalidInputError) as caught:
        require_kept(FILE, lost, 20, 0.2, given={"price": 4, "image": 3})
    assert "lost 2 of 4 values of `price`" in str(caught.value)
    assert "2 of 3 values of `image` (67%; no image, such as empty of p0)" in str(caught.value)
    assert "updated_at" not in str(caught.value)


def test_the_accepted_share_that_the_message_names_is_enough():
    lost = _lost("price", 2)
    with pytest.raises(InvalidInputError, match=r"--max-lost-share 0\.67$"):
        require_kept(FILE, lost, 3, 0.2)
    require_kept(FILE, lost, 3, 0.67)
