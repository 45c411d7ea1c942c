import numpy as np
import pyarrow as pa

from consumers.ranking.placebo import permute_content, permute_view, permute_view_as_of
from consumers.ranking.training_set import JoinedView
from tests.consumers.ranking.logs import DAY, START, small_log


def test_products_swap_only_with_products_of_the_same_modalities_and_newness() -> None:
    data, new_since = small_log(), START + 8 * DAY
    shuffled = permute_content(data, new_since, seed=4)
    before, after = data.views["product_embedding"], shuffled.views["product_embedding"]
    shown = before.row >= 0
    assert (after.row[shown] >= 0).all()
    assert (after.row[~shown] == -1).all()
    for name in ("has_image", "has_text"):
        np.testing.assert_array_equal(before.numbers(name), after.numbers(name))
    is_new = before.since >= new_since
    np.testing.assert_array_equal(is_new[before.row[shown]], is_new[after.row[shown]])
    assert (before.row != after.row)[shown].mean() > 0.8


def test_a_product_keeps_one_partner_over_all_times_and_views() -> None:
    data = small_log()
    shuffled = permute_content(data, START + 8 * DAY, seed=4)
    embedding, tags = shuffled.views["product_embedding"].row, shuffled.views["product_tags"].row
    np.testing.assert_array_equal(embedding, tags)
    pairs = {(mine, other) for mine, other in zip(data.product, embedding, strict=True) if other >= 0}
    assert len(pairs) == len({mine for mine, _ in pairs})


def test_what_the_shop_says_of_a_product_stays_with_it() -> None:
    data = small_log()
    shuffled = permute_content(data, START + 8 * DAY, seed=4)
    assert shuffled.views["product_catalogue"] is data.views["product_catalogue"]


def test_a_partner_with_fewer_versions_gives_its_last_one() -> None:
    a, b = 0, 1
    view = JoinedView(pa.table({"value": [10.0, 20.0, 11.0]}), np.array([1, 2, 3]), np.array([0, 2, 1, -1]))
    np.testing.assert_array_equal(permute_view(view, np.array([a, a, b, b]), np.array([b, a])).row, [1, 1, 0, -1])


def test_what_comes_with_time_is_the_partner_s_of_then_and_never_of_later() -> None:
    chance = np.random.default_rng(0)
    products, rows = 7, 400
    owner, since = np.repeat(np.arange(products), 5), chance.integers(0, 50, products * 5)
    product, time = chance.integers(0, products, rows), chance.integers(0, 60, rows)

    def newest(of: int, at: int) -> int:
        mine = [v for v in range(len(owner)) if owner[v] == of and since[v] <= at]
        return max(mine, key=lambda v: (since[v], v), default=-1)

    view = JoinedView(
        pa.table({"value": np.arange(len(owner))}),
        since,
        np.array([newest(p, t) for p, t in zip(product, time, strict=True)]),
    )
    partner = chance.permutation(products)
    found = permute_view_as_of(view, product, partner, time)
    used = set(view.row[view.row >= 0].tolist())  # versions that no row has are not there to be given
    for row in range(rows):
        theirs = [v for v in used if owner[v] == partner[product[row]] and since[v] <= time[row]]
        wanted = max(theirs, key=lambda v: (since[v], v), default=-1) if view.row[row] >= 0 else -1
        assert found.row[row] == wanted
        assert found.row[row] < 0 or since[found.row[row]] <= time[row]
