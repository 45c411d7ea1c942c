"""What the caches keep of a forgotten product's own contents is deleted, of every encoder; shared contents stay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from producers import maintenance
from producers.embeddings import output_store, vector_cache
from producers.embeddings.forget_contents import find_contents
from producers.embeddings.vector_cache import IMAGE, TITLE
from tests.feature_repo.features import world

NOW = datetime(2026, 9, 1, tzinfo=UTC)
VERSIONS = ("a@1", "b@2", "c@3")
TOWER = "0123456789ab"


def make_shop(folder: Path) -> Settings:
    """Three products in five versions: p1 and p2 share an image, p2 and p3 a title, p1 had another title before."""
    settings = world.deployment(folder)
    columns = {
        "product_id": ["p1", "p1", "p2", "p3", "p4"],
        "title": ["first", "second", "shared", "shared", None],
        "image_hash": [b"i" * 16, b"i" * 16, b"i" * 16, b"j" * 16, None],
    }
    world.write_rows(settings, "product_catalogue", [NOW + timedelta(days=day) for day in range(5)], **columns)
    return settings


def title_hash(text: str) -> bytes:
    return content_hash(text.encode())


def test_only_contents_of_no_other_product_are_found(tmp_path: Path) -> None:
    settings = make_shop(tmp_path / "shop")
    assert find_contents(settings, ["p1"]) == {IMAGE: set(), TITLE: {title_hash("first"), title_hash("second")}}
    assert find_contents(settings, ["p2"]) == {IMAGE: set(), TITLE: set()}
    assert find_contents(settings, ["p3"]) == {IMAGE: {b"j" * 16}, TITLE: set()}
    assert find_contents(settings, ["p2", "p3"]) == {IMAGE: {b"j" * 16}, TITLE: {title_hash("shared")}}
    assert find_contents(settings, ["p4", "nobody"]) == {IMAGE: set(), TITLE: set()}


def test_forgetting_reaches_every_encoder_and_the_outputs_of_towers(tmp_path: Path) -> None:
    settings = make_shop(tmp_path / "shop")
    folder, titles = settings.offline / vector_cache.FOLDER, [title_hash("first"), title_hash("shared")]
    for version in VERSIONS:
        with vector_cache.open_cache(folder, version, 4) as cache:
            cache.put(TITLE, titles, np.ones((2, 4), np.float32))
            cache.put(IMAGE, [b"j" * 16], np.ones((1, 4), np.float32))
    with output_store.open_outputs(settings.offline / output_store.FOLDER) as outputs:
        outputs.check_name(TITLE, "a tower", TOWER)
        outputs.put(output_store.TITLE, TOWER, titles, np.ones((2, 3), np.float16))
    dry = maintenance.forget(settings, products=["p1"], users=[], dry_run=True)
    assert (dry.contents, dry.offline) == (0, {"product_catalogue": 2})
    done = maintenance.forget(settings, products=["p1"], users=[])
    assert done.contents == len(VERSIONS) + 1
    for version in VERSIONS:
        with vector_cache.open_cache(folder, version, 4) as cache:
            assert cache.has(TITLE, titles).tolist() == [False, True]
            assert cache.has(IMAGE, [b"j" * 16]).tolist() == [True]
    with output_store.open_outputs(settings.offline / output_store.FOLDER) as outputs:
        assert outputs.has(output_store.TITLE, TOWER, titles).tolist() == [False, True]
        outputs.check_name(TITLE, "a tower", TOWER)
    assert maintenance.forget(settings, products=["p1"], users=[]).contents == 0


def test_the_vectors_of_one_encoder_are_cleared(tmp_path: Path) -> None:
    for version in VERSIONS:
        with vector_cache.open_cache(tmp_path, version, 4) as cache:
            cache.put(TITLE, [b"x" * 16, b"y" * 16], np.ones((2, 4), np.float32))
    with vector_cache.open_cache(tmp_path, "b@2", 4) as cache:
        assert (cache.clear(), cache.clear()) == (2, 0)
    for version in VERSIONS:
        with vector_cache.open_cache(tmp_path, version, 4) as cache:
            assert cache.has(TITLE, [b"x" * 16]).tolist() == [version != "b@2"]
