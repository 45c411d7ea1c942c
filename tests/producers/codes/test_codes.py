"""Semantic IDs: similar products share their first code, codebooks are kept, and a bad codebook is not written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from producers import cli
from producers.codes import codebook
from producers.codes.run import CodingSummary, QualityGates, code_products
from tests.feature_repo.features import world

NOW = datetime(2026, 9, 1, tzinfo=UTC)
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = QualityGates(1.0, 0.0, 1.0)


def clustered(seed: int, products: int) -> np.ndarray:
    """Return unit vectors around eight centres, which a first level of eight codes must find."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, world.WIDTH))
    vectors = centres[np.arange(products) % 8] + 0.15 * rng.normal(size=(products, world.WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(store: Settings, vectors: np.ndarray, since: datetime = SINCE, first: int = 0) -> None:
    world.write_vectors(store, [f"p{first + i}" for i in range(len(vectors))], vectors, since)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    store = world.deployment(tmp_path)
    write(store, clustered(0, 400))
    return store


def code(
    store: Settings,
    retrain: bool = False,
    gates: QualityGates = OPEN,
    size: int = 8,
    seed: int = 0,
    recompute: bool = False,
    now: datetime = NOW,
) -> CodingSummary:
    return code_products(
        store,
        encoder_version=None,
        levels=3,
        size=size,
        retrain=retrain,
        recompute=recompute,
        gates=gates,
        seed=seed,
        now=now,
    )


def rows_of(store: Settings) -> list[dict]:
    return delta.read(store.table("product_codes")).sort_by([("product_id", "ascending")]).to_pylist()


def test_only_similar_products_share_their_first_code(store: Settings) -> None:
    code(store)
    first = {int(row["product_id"][1:]) % 8: set() for row in rows_of(store)}
    for row in rows_of(store):
        first[int(row["product_id"][1:]) % 8].add(row["codes"][0])
    assert all(len(codes) == 1 for codes in first.values())
    assert len(set.union(*first.values())) == 8


def test_a_code_is_the_nearest_centroid_of_the_residual(store: Settings) -> None:
    summary = code(store)
    book = codebook.load_codebook(store.offline / "codebooks" / f"{summary.codebook_version}.npz")
    vectors = clustered(0, 400)
    for row in rows_of(store):
        left = vectors[int(row["product_id"][1:])].astype(np.float64)
        for level, found in zip(book.levels, row["codes"], strict=True):
            distances = ((level - left) ** 2).sum(axis=1)
            assert distances[found] == pytest.approx(distances.min(), rel=1e-4, abs=1e-6)
            left = left - level[found]
        assert row["semantic_id"] == "-".join(map(str, row["codes"]))


def test_new_products_are_coded_by_the_existing_codebook(store: Settings) -> None:
    first = code(store)
    assert (first.trained, first.added, first.known) == (True, 400, 0)
    before = rows_of(store)
    again = code(store)
    assert (again.trained, again.added, again.known) == (False, 0, 400)
    write(store, clustered(1, 100), SINCE + timedelta(days=1), first=350)  # fifty of them are new versions
    more = code(store, seed=5)
    assert (more.codebook_version, more.added, more.known) == (first.codebook_version, 100, 400)
    kept = {(row["product_id"], row["event_timestamp"]): row for row in rows_of(store)}
    assert len(kept) == 500
    assert all(kept[row["product_id"], row["event_timestamp"]] == row for row in before)


def rewrite(store: Settings, version: str, day: int, rows: int = 400, **values: object) -> None:
    """Append the rows of some products again with another encoder version or other values, created `day` days later."""
    path = store.table("product_embedding")
    old = {row["product_id"]: row for row in delta.read(path).sort_by("created_timestamp").to_pylist()}
    created = {"encoder_version": version, "created_timestamp": SINCE + timedelta(days=day)}
    changed = [row | created | values for row in list(old.values())[:rows]]
    delta.append(path, pa.Table.from_pylist(changed, schema.PRODUCT_EMBEDDING))


def newest_rows(store: Settings) -> dict[tuple[str, datetime], dict]:
    """The row of the first encoder that was created last, of each product and event time."""
    of_encoder = pc.field("encoder_version") == world.ENCODER
    rows = delta.read(store.table("product_codes"), where=of_encoder).sort_by("created_timestamp").to_pylist()
    return {(row["product_id"], row["event_timestamp"]): row | {"created_timestamp": None} for row in rows}


def test_another_encoder_gets_codes_of_its_own_and_those_of_the_first_one_are_kept(store: Settings) -> None:
    code(store)
    first = newest_rows(store)
    rewrite(store, "other@1", 1)
    other = code(store, now=NOW + timedelta(days=1))
    assert (other.added, other.encoder_version) == (400, "other@1")
    rewrite(store, world.ENCODER, 2)
    again = code(store, now=NOW + timedelta(days=2))
    assert (again.trained, again.added, again.quality.products) == (False, 0, 400)
    assert newest_rows(store) == first
    assert code(store, now=NOW + timedelta(days=3)).added == 0


def test_a_corrected_vector_is_coded_again_and_rows_without_a_digest_only_on_request(store: Settings) -> None:
    code(store)
    rewrite(store, world.ENCODER, 1, rows=3, fused_vector=clustered(0, 400)[7].tolist())
    summary = code(store, now=NOW + timedelta(days=1))
    assert (summary.added, summary.known) == (3, 397)
    assert code(store, now=NOW + timedelta(days=2)).added == 0
    path = store.table("product_codes")
    delta.overwrite(path, delta.read(path).drop_columns(["input_digest"]))
    assert code(store, now=NOW + timedelta(days=3)).added == 0
    assert code(store, recompute=True, now=NOW + timedelta(days=4)).added == 400
    assert code(store, now=NOW + timedelta(days=5)).added == 0


def test_retraining_codes_every_product_again_under_a_new_version(store: Settings) -> None:
    first = code(store)
    other = code(store, retrain=True, size=16)
    assert other.codebook_version != first.codebook_version
    assert other.added == 400
    assert {row["codebook_version"] for row in rows_of(store)} == {first.codebook_version, other.codebook_version}
    assert code(store).codebook_version == codebook.load_newest(store, world.ENCODER).version  # type: ignore[union-attr]


def test_the_same_vectors_and_seed_train_the_same_codebook(store: Settings) -> None:
    version = code(store).codebook_version
    assert code(store, retrain=True).codebook_version == version


@pytest.mark.parametrize("vectors_per_centroid", [codebook.VECTORS_PER_CENTROID, 10])
def test_a_codebook_does_not_depend_on_the_order_of_rows_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors_per_centroid: int
) -> None:
    monkeypatch.setattr(codebook, "VECTORS_PER_CENTROID", vectors_per_centroid)
    vectors, versions = clustered(0, 400), set()
    for attempt in range(4):
        random = np.random.default_rng(attempt)
        store = world.deployment(tmp_path / str(attempt))
        for part in np.array_split(random.permutation(len(vectors)), random.integers(1, 6)):
            world.write_vectors(store, [f"p{number}" for number in part], vectors[part], SINCE)
        versions.add(code(store).codebook_version)
    assert len(versions) == 1


def test_quality_equals_a_direct_computation(store: Settings) -> None:
    vectors = clustered(0, 400)
    write(store, vectors[:10], first=400)  # equal vectors under another id are not a collision
    summary = code(store)
    rows = {int(row["product_id"][1:]): row for row in rows_of(store)}
    ids = [rows[i]["semantic_id"] for i in range(400)]
    assert summary.quality.products == 400
    assert summary.quality.collision_rate == pytest.approx(sum(ids.count(one) > 1 for one in ids) / 400)
    for level in range(3):
        share = np.bincount([rows[i]["codes"][level] for i in range(400)], minlength=8) / 400
        entropy = -sum(p * np.log(p) for p in share if p) / np.log(8)
        assert summary.quality.usage_entropy[level] == pytest.approx(entropy)
    book = codebook.load_codebook(store.offline / "codebooks" / f"{summary.codebook_version}.npz")
    every = np.concatenate([vectors, vectors[:10]])
    approximation = np.array(
        [sum(level[c] for level, c in zip(book.levels, rows[i]["codes"], strict=True)) for i in range(410)]
    )
    unexplained = ((every - approximation) ** 2).sum() / ((every - every.mean(axis=0)) ** 2).sum()
    assert summary.quality.reconstruction_error == pytest.approx(unexplained, rel=1e-3)


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (QualityGates(0.0, 0.0, 1.0), r"collision rate 0\.\d+ > 0\.0"),
        (QualityGates(1.0, 1.0, 1.0), r"usage entropy of level 0"),
        (QualityGates(1.0, 0.0, 0.01), r"reconstruction error 0\.\d+ > 0\.01"),
    ],
)
def test_a_codebook_that_fails_a_gate_writes_nothing(store: Settings, gates: QualityGates, message: str) -> None:
    with pytest.raises(VitrineError, match=message):
        code(store, gates=gates, size=4)
    assert not delta.exists(store.table("product_codes"))
    assert codebook.load_newest(store, world.ENCODER) is None


def test_by_default_the_reconstruction_error_is_reported_and_not_checked(tmp_path: Path) -> None:
    store = world.deployment(tmp_path)
    noise = np.random.default_rng(0).normal(size=(600, world.WIDTH)).astype(np.float32)
    write(store, noise / np.linalg.norm(noise, axis=1, keepdims=True))
    summary = code(store, gates=QualityGates(max_collisions=1.0, min_entropy=0.5), size=2)
    assert summary.quality.reconstruction_error > 0.6
    assert f"reconstruction error {summary.quality.reconstruction_error:.3f}" in str(summary)


def test_vectors_that_the_codebook_does_not_fit_fail_its_gates(store: Settings) -> None:
    strict = QualityGates(1.0, 0.5, 0.5)
    code(store, gates=strict)
    strange = np.tile(-clustered(0, 1), (900, 1)) + 0.2 * np.random.default_rng(3).normal(size=(900, world.WIDTH))
    write(store, strange.astype(np.float32), first=1000)
    with pytest.raises(VitrineError, match="nothing was written"):
        code(store, gates=strict)
    assert len(rows_of(store)) == 400


def test_a_damaged_codebook_is_reported_with_its_file(store: Settings) -> None:
    summary = code(store)
    file = store.offline / "codebooks" / f"{summary.codebook_version}.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VitrineError, match=file.name):
        code(store)
    other = codebook.train_codebook(clustered(0, 50), world.ENCODER, levels=1, size=2, seed=0, now=NOW)
    codebook.save_codebook(store, other).rename(file)
    with pytest.raises(VitrineError, match="changed or damaged"):
        code(store)


def test_fewer_vectors_than_codes_is_reported(store: Settings) -> None:
    with pytest.raises(VitrineError, match="use a smaller --size"):
        code(store, size=512)


def test_the_command_fails_if_a_gate_fails(store: Settings) -> None:
    ran = CliRunner().invoke(cli.app, ["codes", "--size", "8", "--max-error", "0.0", "--store", str(store.file)])
    assert isinstance(ran.exception, VitrineError)
    ran = CliRunner().invoke(cli.app, ["codes", "--size", "8", "--max-collisions", "0.9", "--store", str(store.file)])
    assert ran.exit_code == 0, ran.output
    assert "reconstruction error" in ran.output
    assert schema.PRODUCT_CODES.names == delta.read(store.table("product_codes")).column_names


@pytest.mark.parametrize(("products", "size"), [(1, 1), (10, 10), (150, 16), (8_000, 64), (25_600, 256), (10**8, 256)])
def test_the_size_of_a_codebook_depends_on_the_catalogue(products: int, size: int) -> None:
    assert codebook.choose_size(products) == size


def test_the_index_of_each_level_is_moved_to_the_gpus_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(0, 400)
    book = codebook.train_codebook(vectors, "encoder@1", levels=3, size=8, seed=0, now=NOW)
    expected, _ = book.encode(vectors)
    moved: list[faiss.Index] = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index)
    again = replace(book)
    np.testing.assert_array_equal([*again.encode(vectors[:100])[0], *again.encode(vectors[100:])[0]], expected)
    assert len(moved) == 3
