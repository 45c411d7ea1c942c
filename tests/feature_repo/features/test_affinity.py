"""The affinity features computed in five ways, each compared with the slow definition on a small shop."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import torch

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.features import affinity, affinity_torch
from feature_repo.features.affinity import NAMES, AffinityLog, Candidates, UserState
from feature_repo.stores.feature_store import open_feature_store
from tests.feature_repo.features import slow_affinity, world
from tests.feature_repo.features.world import RANKED, Shop

NOW = int(RANKED.timestamp() * 1e6)
SHOP = world.small_shop()
USERS = list(SHOP.clicks)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Return float64 [users, products] for each feature."""
    found = []
    for user in USERS:
        child = slow_affinity.child_of(SHOP, user, NOW)
        found.append([slow_affinity.affinity(SHOP, user, child, product) for product in range(len(SHOP.products))])
    return {name: np.array([[row[name] for row in of_user] for of_user in found]) for name in NAMES}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A deployment that holds the shop offline and online."""
    from feature_repo import definitions

    made = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(SHOP, made)
    store = open_feature_store(made)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(RANKED)
    return made


@pytest.fixture(scope="module")
def reader(deployment: Settings) -> Iterator[OnlineReader]:
    with OnlineReader(f"lmdb://{deployment.file.parent / 'online'}", project=deployment.project) as opened:
        yield opened


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = 1e-3) -> None:
    assert list(found) == list(NAMES)
    for name in NAMES:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(
            found[name], wanted[name].reshape(found[name].shape), rtol=0, atol=tolerance, err_msg=name
        )


def of(expected: dict[str, np.ndarray], user: str) -> dict[str, np.ndarray]:
    return {name: values[USERS.index(user)] for name, values in expected.items()}


def history_of(user: str) -> list[int]:
    return [product for product, _ in reversed(SHOP.clicks[user])][:50]


def row_of(shop: Shop, user: str) -> UserState:
    state = world.interest_of(shop, user)
    assert state is not None
    last = history_of(user)
    means = state.means
    return UserState(
        means.vector[0],
        means.ages[0],
        means.genders[0],
        state.times[0],
        [f"p{product}" for product in last],
        shop.vectors[last],
        shop.codes[last],
    )


CANDIDATES = Candidates(SHOP.products, SHOP.vectors, SHOP.ages, SHOP.genders, SHOP.codes)


@pytest.mark.parametrize("user", USERS[1:])
def test_agrees_with_the_slow_definition(expected: dict[str, np.ndarray], user: str) -> None:
    same(affinity.compute_user_affinity(row_of(SHOP, user), CANDIDATES, NOW), of(expected, user), 5e-4)


@pytest.mark.parametrize("user", USERS)
def test_online_values_equal_offline_values(reader: OnlineReader, expected: dict[str, np.ndarray], user: str) -> None:
    found = fetch_with_affinity(reader, "ranking_with_affinity", user, SHOP.products, RANKED)
    assert found.block.values["product_catalogue__price"].tolist() == [9.5] * len(SHOP.products)
    same(found.affinity, of(expected, user))


def test_candidates_without_any_data_have_nan_similarities(reader: OnlineReader) -> None:
    found = fetch_with_affinity(reader, "ranking_with_affinity", USERS[1], ["nobody", "nothing"], RANKED)
    assert found.affinity["same_product"].tolist() == [0.0, 0.0]
    assert all(np.isnan(values).all() for name, values in found.affinity.items() if name != "same_product")


def test_a_log_gets_the_values_of_single_requests(expected: dict[str, np.ndarray]) -> None:
    rows = whole_log()
    found = affinity.compute_log_affinity(rows, SHOP.vectors, SHOP.codes, np.full(len(rows.user), NOW))
    same(found, {name: values[1:] for name, values in expected.items()}, 5e-4)


def test_torch_gives_the_same_values(expected: dict[str, np.ndarray]) -> None:
    rows = whole_log()
    vectors = np.concatenate([SHOP.vectors, np.full((1, world.WIDTH), np.nan, np.float32)])
    numpy = affinity.compute_log_affinity(rows, SHOP.vectors, SHOP.codes, np.full(len(rows.user), NOW))
    found = affinity_torch.compute_affinity(
        *map(torch.from_numpy, (vectors[rows.candidate], vectors[rows.history], rows.interest)),
        (torch.from_numpy(rows.candidate_ages), torch.from_numpy(rows.ages)),
        (torch.from_numpy(rows.candidate_genders), torch.from_numpy(rows.genders)),
        torch.from_numpy(NOW - rows.last_click_us),
        torch.from_numpy(np.stack([numpy[name] for name in NAMES[-3:]], axis=1)),
    )
    columns = {name: column.numpy() for name, column in zip(NAMES, found.T, strict=True)}
    same(columns, {name: values[1:] for name, values in expected.items()})


def test_torch_propagates_gradients_to_the_vectors() -> None:
    chance = torch.Generator().manual_seed(0)
    candidate, history, interest = (torch.rand(s, generator=chance) for s in ((4, 8), (4, 6, 8), (4, 8)))
    history[0, 2:] = torch.nan
    for tensor in (candidate, history, interest):
        tensor.requires_grad_()
    stages, genders = torch.full((4, 5), 0.2), torch.full((4, 3), 1 / 3)
    values = affinity_torch.compute_affinity(
        candidate, history, interest, (stages, stages), (genders, genders), torch.zeros(4), torch.zeros(4, 3)
    )
    values.sum().backward()
    assert candidate.grad is not None
    assert candidate.grad.isfinite().all()
    assert (candidate.grad != 0).any(dim=1).all()


def whole_log() -> AffinityLog:
    """Return a log that pairs every user who has a row with every product."""
    users, products = USERS[1:], len(SHOP.products)
    history = np.full((len(users), 50), -1)
    for place, user in enumerate(users):
        history[place, : len(history_of(user))] = history_of(user)
    states = [world.interest_of(SHOP, user) for user in users]
    known = [state for state in states if state is not None]

    def of_users(values: list) -> np.ndarray:
        return np.repeat(np.stack(values), products, axis=0)

    candidate = np.tile(np.arange(products), len(users))
    return AffinityLog(
        user=of_users(list(range(len(users)))),
        interest=of_users([state.means.vector[0] for state in known]),
        ages=of_users([state.means.ages[0] for state in known]),
        genders=of_users([state.means.genders[0] for state in known]),
        last_click_us=of_users([state.times[0] for state in known]),
        history=of_users(list(history)),
        candidate=candidate,
        candidate_ages=SHOP.ages[candidate],
        candidate_genders=SHOP.genders[candidate],
        same_product=np.concatenate([affinity.count_clicks(range(products), history_of(user)) for user in users]),
    )


def request_of(users: list[str]) -> pd.DataFrame:
    """Return entity rows that pair these users with every product, with the columns of the request."""
    rows = []
    for user in users:
        last = history_of(user)
        rows += [
            {
                "user_id": user,
                "product_id": product,
                "event_timestamp": RANKED,
                "history_vectors": SHOP.vectors[last].ravel().tolist(),
                "history_codes": SHOP.codes[last].ravel().tolist(),
                "ranked_at": NOW,
            }
            for product in SHOP.products
        ]
    return pd.DataFrame(rows)


FEATURES = [f"user_product_affinity:{name}" for name in NAMES]


def test_a_training_set_of_feast_has_the_same_values(deployment: Settings, expected: dict[str, np.ndarray]) -> None:
    store = open_feature_store(deployment)
    job = store.get_historical_features(request_of(USERS), FEATURES, full_feature_names=True)
    table = job.to_df()
    found = {name: table[f"user_product_affinity__{name}"].to_numpy(np.float32) for name in NAMES}
    same(found, expected)


def test_feast_serves_the_same_values(deployment: Settings, expected: dict[str, np.ndarray]) -> None:
    store = open_feature_store(deployment)
    for user in USERS[1:]:
        rows = request_of([user]).drop(columns="event_timestamp").to_dict("list")
        answer = store.get_online_features(FEATURES, rows, full_feature_names=True).to_df()
        found = {name: answer[f"user_product_affinity__{name}"].to_numpy(np.float32) for name in NAMES}
        same(found, of(expected, user))


def test_a_request_without_history_has_nan_history_features(deployment: Settings) -> None:
    store = open_feature_store(deployment)
    rows = request_of(["u5"]).drop(columns="event_timestamp")
    rows["history_vectors"] = None
    rows["history_codes"] = None
    answer = store.get_online_features(FEATURES, rows.to_dict("list"), full_feature_names=True).to_df()
    for name in NAMES:
        made = answer[f"user_product_affinity__{name}"].to_numpy(np.float32)
        of_history = name in affinity.SIMILARITY_NAMES or name in ("same_code", "same_coarse_code")
        assert np.isnan(made).all() == of_history, name


def ranked_at(moment: object, deployment: Settings) -> dict[str, np.ndarray]:
    """Return what Feast serves for u5 and every product."""
    asked = request_of(["u5"]).drop(columns="event_timestamp").to_dict("list")
    asked["ranked_at"] = [moment] * len(asked["ranked_at"])
    answer = open_feature_store(deployment).get_online_features(FEATURES, asked, full_feature_names=True).to_df()
    return {name: answer[f"user_product_affinity__{name}"].to_numpy(np.float32) for name in NAMES}


@pytest.mark.parametrize(
    "moment",
    [RANKED, RANKED.replace(tzinfo=None), RANKED.astimezone(timezone(timedelta(hours=8))), pd.Timestamp(RANKED)],
)
def test_ranked_at_may_be_a_datetime(moment: datetime, deployment: Settings, expected: dict[str, np.ndarray]) -> None:
    same(ranked_at(moment, deployment), of(expected, "u5"))


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_without_ranked_at_the_age_features_are_nan(
    missing: object, deployment: Settings, expected: dict[str, np.ndarray]
) -> None:
    nothing = np.full(len(SHOP.products), np.nan, np.float32)
    same(ranked_at(missing, deployment), of(expected, "u5") | {"age_match": nothing, "age_gap": nothing})


@pytest.mark.parametrize("strange", ["2026-03-01T00:00:00Z", True, float("inf"), [1]])
def test_an_invalid_ranked_at_raises_an_error(strange: object, deployment: Settings) -> None:
    with pytest.raises(VitrineError, match=r"ranked_at: .*expected microseconds since 1970 UTC, or a datetime"):
        ranked_at(strange, deployment)


def test_a_history_of_the_wrong_length_raises_an_error(deployment: Settings) -> None:
    store = open_feature_store(deployment)
    rows = request_of(["u5"]).drop(columns="event_timestamp")
    rows["history_vectors"] = [[0.5] * 7] * len(rows)
    with pytest.raises(VitrineError, match="7 numbers for 50 products of 12 each"):
        store.get_online_features(FEATURES, rows.to_dict("list"), full_feature_names=True)
