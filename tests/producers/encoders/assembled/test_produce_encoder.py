"""`produce encoder` with towers, as a user calls it: names, locks, clicks, and a space like that of other encoders."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo.errors import UsageError
from producers.cli import app
from producers.encoders import load
from producers.encoders.licence import read_licence
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import IMAGES, TITLES

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    checkpoints.clip(folder / "clip")
    (folder / "clip" / "README.md").write_text("---\nlicense: mit\n---\n")
    ids = [f"p{number}" for number in range(len(TITLES))]
    pq.write_table(pa.table({"product_id": ids, "title": TITLES, "image": IMAGES}), folder / "products.parquet")
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(30), 12)
    clicked = rng.choice(len(ids), len(users)) // 2 * 2 + users % 2  # a user likes one kind of products
    columns = {
        "impression_id": [f"i{row}" for row in range(len(users))],
        "user_id": [f"u{user}" for user in users],
        "product_id": [ids[row] for row in clicked],
        "event_timestamp": [START + timedelta(minutes=row) for row in range(len(users))],
        "clicked": np.ones(len(users), np.int64),
    }
    pq.write_table(pa.table(columns), folder / "impressions.parquet")
    return folder


def produce(shop: Path, *options: str) -> str:
    arguments = ["encoder", "--data", str(shop), "--output", str(shop / "out"), *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False).output


def test_clicks_weight_the_space_of_an_assembled_encoder(shop: Path) -> None:
    towers = ("--image-tower", str(shop / "clip"), "--text-tower", str(shop / "clip"), "--dim", "8", "--name", "ours")
    plain = produce(shop, *towers)
    assert "heads trained on 48 products" in plain
    before = load(str(shop / "out"), device="cpu")
    assert read_licence(str(shop / "out")) == "clip mit"
    clicks = ("--align", str(shop / "impressions.parquet"), "--until", "2026-02-01T00:00:00+00:00")
    aligned = produce(shop, *towers, *clicks, "--licence", "ours alone")
    assert read_licence(str(shop / "out")) == "ours alone"
    assert "360 clicks before 2026-02-01" in aligned
    after = load(str(shop / "out"), device="cpu")
    assert before.version.startswith("ours@")
    assert before.space is not None
    assert after.space is not None
    assert not np.allclose(before.space.axes, after.space.axes)
    np.testing.assert_array_equal(before.encode_texts(TITLES[:3]), after.encode_texts(TITLES[:3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-tower", "x", "--unlock-last", "1"], "add --unlock-image or --unlock-text"),
        (["--image-tower", "x", "--unlock-text"], "--unlock-text needs a text tower"),
        (["--unlock-image"], "--unlock-image needs --image-tower or --towers auto"),
        (["--image-tower", "x", "--batch", "8"], "leave it out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(shop: Path, options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        produce(shop, *options)
