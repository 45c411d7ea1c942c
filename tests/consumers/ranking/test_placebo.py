import numpy as np
import pyarrow as pa

from consumers.ranking.placebo import permute_content, permute_view, permute_view_as_of
from consumers.ranking.training_set import JoinedView
from tests.consumers.ranking.logs import DAY, START, small_log


def test_products_exchange_content_only_within_modalities_and_newness() -> None:
    data, new_since = small_log(), START + 8 * DAY
    shuffled = permute_content(data, new_since, seed=4)
    before, after = data.views["product_embedding"], shuffled.views["product_embedding"]
    shown = before.row_index >= 0
    assert (after.row_index[shown] >= 0).all()
    assert (after.row_index[~shown] == -1).all()
    for name in ("has_image", "has_text"):
        np.testing.assert_array_equal(before.numbers(name), after.numbers(name))
    is_new = before.timestamp_us >= new_since
    np.testing.assert_array_equal(is_new[before.row_index[shown]], is_new[after.row_index[shown]])
    assert (before.row_index != after.row_index)[shown].mean() > 0.8


def test_a_product_has_one_partner_for_all_times_and_views() -> None:
    data = small_log()
    shuffled = permute_content(data, START + 8 * DAY, seed=4)
    embedding, tags = shuffled.views["product_embedding"].row_index, shuffled.views["product_tags"].row_index
    np.testing.assert_array_equal(embedding, tags)
    pairs = {(mine, other) for mine, other in zip(data.product, embedding, strict=True) if other >= 0}
    assert len(pairs) == len({mine for mine, _ in pairs})


def test_the_catalogue_view_is_not_permuted() -> None:
    data = small_log()
    shuffled = permute_content(data, START + 8 * DAY, seed=4)
    assert shuffled.views["product_catalogue"] is data.views["product_catalogue"]


def test_a_partner_with_fewer_versions_gives_its_last_one_for_the_rest() -> None:
    a, b = 0, 1
    view = JoinedView(pa.table({"value": [10.0, 20.0, 11.0]}), np.array([1, 2, 3]), np.array([0, 2, 1, -1]))
    np.testing.assert_array_equal(permute_view(view, np.array([a, a, b, b]), np.array([b, a])).row_index, [1, 1, 0, -1])


def test_a_refreshed_view_gives_the_partners_version_of_that_time() -> None:
    generator = np.random.default_rng(0)
    products, rows = 7, 400
    owner, since = np.repeat(np.arange(products), 5), generator.integers(0, 50, products * 5)
    product, time = generator.integers(0, products, rows), generator.integers(0, 60, rows)

    def newest(of: int, at: int) -> int:
        mine = [v for v in range(len(owner)) if owner[v] == of and since[v] <= at]
        return max(mine, key=lambda v: (since[v], v), default=-1)

    view = JoinedView(
        pa.table({"value": np.arange(len(owner))}),
        since,
        np.array([newest(p, t) for p, t in zip(product, time, strict=True)]),
    )
    partner = generator.permutation(products)
    result = permute_view_as_of(view, product, partner, time)
    used = set(view.row_index[view.row_index >= 0].tolist())  # versions that no row has are not there to be given
    for row in range(rows):
        theirs = [v for v in used if owner[v] == partner[product[row]] and since[v] <= time[row]]
        wanted = max(theirs, key=lambda v: (since[v], v), default=-1) if view.row_index[row] >= 0 else -1
        assert result.row_index[row] == wanted
        assert result.row_index[row] < 0 or since[result.row_index[row]] <= time[row]
