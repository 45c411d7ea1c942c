from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InvalidInputError, NotFoundError
from producers.learning.evaluation import compute_oracle_recall, hold_out


def make_shop(folder: Path, designs: list[str]) -> Path:
    ids = [f"p{number}" for number in range(len(designs))]
    products = {"product_id": ids, "title": ids, "image": [f"{each}.jpg" for each in ids]}
    pq.write_table(pa.table(products), folder / "products.parquet")
    pq.write_table(pa.table({"product_id": ids, "design_id": designs}), folder / "designs.parquet")
    return folder


def test_whole_designs_are_held_out(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, ["a", "a", "b", "b", "c"])
    held_out = hold_out(shop, shop / "designs.parquet", 3, seed=0).to_pydict()
    assert len(held_out["product_id"]) == 3
    assert set(held_out["design_id"]) in ({"a", "c"}, {"b", "c"})


@pytest.mark.parametrize("count", [0, 1])
def test_a_count_below_the_smallest_design_is_refused_with_that_size(tmp_path: Path, count: int) -> None:
    shop = make_shop(tmp_path, ["a", "a", "b", "b", "b"])
    with pytest.raises(InvalidInputError, match=f"the smallest has 2 products; hold out 2 or more instead of {count}"):
        hold_out(shop, shop / "designs.parquet", count, seed=0)


def test_a_truth_without_products_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"products\.parquet"):
        compute_oracle_recall(["blue"], ["p0"], np.array(["a"], object), tmp_path)
