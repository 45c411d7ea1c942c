"""`produce groups` on real tables: increments, ids that stay, the journal, as-of joins, and forgotten products."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.index import update
from feature_repo.index.product_index import open_index
from feature_repo.index.rows import GROUP_FOLDER
from feature_repo.offline import delta
from producers import cli, maintenance
from producers.groups.run import GroupingSummary, group_products
from tests.feature_repo.features import world
from tests.producers.groups.world import GeneratedOffers, make_offers

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 9, 1, tzinfo=UTC)
LEARNED = 45
"""Designs whose pairs are judged; the others arrive later."""


def write(store: Settings, offers: GeneratedOffers, rows: np.ndarray, day: int) -> None:
    """Write products into the catalogue, with their vectors."""
    chosen = offers.products.take(pa.array(rows))
    times = pa.repeat(pa.scalar(START + day * DAY, schema.TIMESTAMP), len(chosen))
    chosen = chosen.append_column(schema.EVENT_TIMESTAMP, times).append_column(schema.CREATED_TIMESTAMP, times)
    chosen = chosen.append_column("encoder_version", pa.repeat("e1", len(chosen)))
    for table, wanted in (
        (schema.CATALOGUE_TABLE, schema.CATALOGUE),
        (schema.EMBEDDING_TABLE, schema.PRODUCT_EMBEDDING),
    ):
        columns = [
            chosen[field.name].cast(field.type)
            if field.name in chosen.column_names
            else pa.nulls(len(rows), field.type)
            for field in wanted
        ]
        delta.append(store.table(table), pa.table(columns, schema=wanted))


def set_active(store: Settings, product_ids: list[str], active: bool, day: int) -> None:
    state = {"active": active, "event_timestamp": START + day * DAY, "created_timestamp": START + day * DAY}
    rows = [{schema.PRODUCT_ID: product_id, **state} for product_id in product_ids]
    delta.append(store.table(schema.ACTIVE_TABLE), pa.Table.from_pylist(rows, schema=schema.PRODUCT_ACTIVE))


def judge(offers: GeneratedOffers, file: Path, *, others: float = 0.3) -> Path:
    """Write the truth about the learned designs: every pair of one design, and a share of the others."""
    ids = offers.products["product_id"].to_pylist()
    pairs = offers.judge_all()
    lines = ["product_id_l,product_id_r,label,inclusion_probability"]
    drawn = np.random.default_rng(0).random(len(pairs.left)) < others
    for a, b, same, is_drawn in zip(pairs.left, pairs.right, pairs.is_same, drawn, strict=True):
        if max(offers.design[a], offers.design[b]) < LEARNED and (same or is_drawn):
            lines.append(f"{ids[a]},{ids[b]},{'same,1' if same else f'different,{others}'}")
    file.write_text("\n".join(lines) + "\n")
    return file


def group(
    store: Settings, day: int, judgements: Path | None = None, *, one_per_seller: bool = False, top_k: int = 30
) -> GroupingSummary:
    return group_products(
        store,
        judgements=judgements,
        encoder_version=None,
        one_per_seller=one_per_seller,
        top_k=top_k,
        seed=0,
        now=NOW + day * DAY,
    )


def groups_of(store: Settings) -> dict[str, str]:
    rows = delta.read(
        store.table(schema.GROUP_TABLE), ["product_id", "group_id", "event_timestamp", "created_timestamp"]
    )
    ordered = rows.sort_by([("event_timestamp", "ascending"), ("created_timestamp", "ascending")]).to_pylist()
    return {row["product_id"]: row["group_id"] for row in ordered}


def journal_of(store: Settings, day: int) -> list[dict]:
    rows = delta.read(store.table(schema.GROUP_JOURNAL_TABLE)).to_pylist()
    return [row for row in rows if row["created_timestamp"] == NOW + day * DAY]


def partition(groups: dict[str, str]) -> set[frozenset[str]]:
    members: dict[str, set[str]] = {}
    for product, name in groups.items():
        members.setdefault(name, set()).add(product)
    return {frozenset(one) for one in members.values()}


@pytest.fixture(scope="module")
def offers() -> GeneratedOffers:
    return make_offers(60, noise=0.4)


@pytest.fixture(scope="module")
def trained(offers: GeneratedOffers, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A store whose learned designs are grouped, to be copied."""
    folder = tmp_path_factory.mktemp("groups")
    store = world.deployment(folder)
    write(store, offers, np.flatnonzero(offers.design < LEARNED), 0)
    group(store, 0, judge(offers, folder / "pairs.csv"))
    return store


@pytest.fixture
def store(trained: Settings, tmp_path: Path) -> Settings:
    store = world.deployment(tmp_path)
    shutil.copytree(trained.offline, store.offline)
    return store


def test_an_increment_gives_the_groups_of_a_store_that_had_all_products_at_once(
    store: Settings, offers: GeneratedOffers, tmp_path: Path
) -> None:
    before = groups_of(store)
    new = np.flatnonzero(offers.design >= LEARNED)
    for day, rows in enumerate(np.array_split(new, 2), start=1):
        write(store, offers, rows, day)
        summary = group(store, day)
        assert summary.compared == len(rows)
    after = groups_of(store)
    assert {product: after[product] for product in before} == before  # other designs do not change them
    truth = partition({f"p{row:04d}": str(design) for row, design in enumerate(offers.design) if design >= LEARNED})
    found = partition({product: name for product, name in after.items() if product not in before})
    assert len(truth & found) / len(truth) > 0.7
    assert group(store, 3).rows == 0  # nothing is new


def test_a_product_that_comes_joins_its_group_and_the_id_outlives_the_first_member(
    store: Settings, offers: GeneratedOffers
) -> None:
    before = groups_of(store)
    members = max(partition(before), key=len)
    first, *others = sorted(members)
    set_active(store, [first], False, 1)
    group(store, 1)
    assert [(row["product_id"], row["change"]) for row in journal_of(store, 1)] == [(first, "gone")]
    twin = offers.products.take([int(others[0][1:])]).set_column(0, "product_id", pa.array(["twin"]))
    write(store, GeneratedOffers(twin, np.array([0])), np.array([0]), 2)
    group(store, 2)
    after = groups_of(store)
    assert {after[one] for one in (*others, "twin")} == {before[first]}
    assert [(row["product_id"], row["change"]) for row in journal_of(store, 2)] == [("twin", "joined")]
    set_active(store, [first], True, 3)
    group(store, 3)
    assert groups_of(store)[first] == before[first]
    assert [(row["product_id"], row["change"]) for row in journal_of(store, 3)] == [(first, "returned")]
    assert group(store, 4).changes["gone"] == 0


def test_a_product_that_becomes_another_one_is_split_off_and_written_in_the_journal(
    store: Settings, offers: GeneratedOffers
) -> None:
    before = groups_of(store)
    product = sorted(max(partition(before), key=len))[0]
    row = int(product[1:])
    other = int(np.flatnonzero(offers.design >= LEARNED)[0])
    changed = offers.products.take([other]).set_column(0, "product_id", pa.array([offers.products["product_id"][row]]))
    write(store, GeneratedOffers(changed, np.array([0])), np.array([0]), 5)
    group(store, 5)
    after = groups_of(store)
    assert after[product] != before[product]
    assert {one: name for one, name in after.items() if one != product} == {
        one: name for one, name in before.items() if one != product
    }
    (entry,) = journal_of(store, 5)
    assert (entry["change"], entry["from_group_id"]) == ("split", before[product])
    rows = delta.read(store.table(schema.GROUP_TABLE)).to_pylist()
    times = {row["group_id"]: row["event_timestamp"] for row in rows if row["product_id"] == product}
    assert times == {before[product]: START, after[product]: START + 5 * DAY}  # joinable as of a time


def test_a_product_whose_image_alone_changed_is_compared_again(store: Settings, offers: GeneratedOffers) -> None:
    assert group(store, 1).compared == 0
    image = offers.products.append_column("image_hash", pa.array([b"another image..."] * len(offers.products)))
    write(store, GeneratedOffers(image, offers.design), np.array([0]), 5)
    assert group(store, 5).compared == 1
    assert group(store, 6).compared == 0


def test_all_products_are_compared_again_with_another_number_of_candidates(store: Settings) -> None:
    products = group(store, 1).products
    assert group(store, 2, top_k=20).compared == products
    assert group(store, 3, top_k=20).compared == 0


def test_two_products_of_one_seller_are_in_two_groups_by_choice(store: Settings, offers: GeneratedOffers) -> None:
    product = sorted(max(partition(groups_of(store)), key=len))[0]
    twins = offers.products.take([int(product[1:])] * 2).set_column(0, "product_id", pa.array(["t1", "t2"]))
    twins = twins.append_column("seller_id", pa.array(["s1", "s1"]))
    write(store, GeneratedOffers(twins, np.array([0, 0])), np.array([0, 1]), 1)
    group(store, 1)
    groups = groups_of(store)
    assert groups["t1"] == groups["t2"]
    assert group(store, 2, one_per_seller=True).changes["split"] >= 1
    groups = groups_of(store)
    assert groups["t1"] != groups["t2"]


def test_an_increment_over_a_graph_gives_the_groups_of_an_exact_one(
    store: Settings, offers: GeneratedOffers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = world.deployment(tmp_path / "exact")
    shutil.copytree(store.offline, exact.offline)
    new = np.flatnonzero(offers.design >= LEARNED)
    for settings, flat_rows in ((exact, 50_000), (store, 10)):
        monkeypatch.setattr(update, "FLAT_ROWS", flat_rows)
        shutil.rmtree(settings.offline / GROUP_FOLDER)
        for day, rows in enumerate(np.array_split(new, 2), start=1):
            write(settings, offers, rows, day)
            group(settings, day)
    index = open_index(next((store.offline / GROUP_FOLDER).iterdir()))
    assert index.segments[0].vectors["fused_vector"].graph is not None
    assert len(index.segments) == 2
    same = partition(groups_of(exact)) & partition(groups_of(store))
    assert len(same) > 0.95 * len(partition(groups_of(exact)))


def test_a_catalogue_whose_products_are_all_gone_has_no_groups(store: Settings) -> None:
    products = sorted(groups_of(store))
    set_active(store, products, False, 1)
    summary = group(store, 1)
    assert (summary.products, summary.groups, summary.changes["gone"]) == (0, 0, len(products))


def test_a_damaged_index_is_built_anew_and_a_new_verifier_has_its_own(
    store: Settings, offers: GeneratedOffers, tmp_path: Path
) -> None:
    (folder,) = (store.offline / GROUP_FOLDER).iterdir()
    next(folder.glob("main-*/rows.arrow")).write_bytes(b"")
    assert group(store, 1).rows == 0
    trained = group(store, 2, judge(offers, tmp_path / "pairs.csv", others=0.5))
    (after,) = (store.offline / GROUP_FOLDER).iterdir()
    assert after.name == trained.verifier_version != folder.name


def test_forget_reaches_groups_pairs_and_the_journal(store: Settings) -> None:
    product = sorted(max(partition(groups_of(store)), key=len))[0]
    summary = maintenance.forget(store, products=[product], users=[])
    assert {schema.GROUP_TABLE, schema.GROUP_JOURNAL_TABLE, schema.PAIR_TABLE} <= set(summary.offline)
    for table in (schema.GROUP_TABLE, schema.GROUP_JOURNAL_TABLE, schema.PAIR_TABLE):
        for row in delta.read(store.table(table)).to_pylist():
            assert product not in row.values()
    assert summary.offline["index"] == 1
    assert open_index(next((store.offline / GROUP_FOLDER).iterdir())).find_rows([product]).tolist() == [-1]


def test_without_a_verifier_the_error_names_the_command(tmp_path: Path, offers: GeneratedOffers) -> None:
    empty = world.deployment(tmp_path)
    write(empty, offers, np.arange(4), 0)
    with pytest.raises(NotFoundError, match="produce groups --pairs"):
        group(empty, 0)
    assert not delta.exists(empty.table(schema.GROUP_TABLE))


def test_judged_pairs_with_an_unknown_id_are_refused_and_nothing_is_written(store: Settings, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("product_id_l,product_id_r,label\np0001,absent,same\n")
    version = delta.latest_version(store.table(schema.GROUP_TABLE))
    result = CliRunner().invoke(cli.app, ["groups", "--pairs", str(tmp_path / "pairs.csv"), "--store", str(store.file)])
    assert result.exit_code != 0
    assert "absent is not in the catalogue" in str(result.exception)
    assert delta.latest_version(store.table(schema.GROUP_TABLE)) == version
