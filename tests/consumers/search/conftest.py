"""A store with an index of a few products, and the export of an untrained encoder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.rows import INDEX_ROWS, find_folder
from feature_repo.index.update import IndexedProducts, build_index
from producers.encoders import tiny_clip
from producers.learning.export import export_encoder

TITLES = ["红色连衣裙", "蓝色连衣裙", "红色积木", "蓝色积木", "=cmd()", "<script>alert(1)</script> 红色"]


@dataclass(frozen=True)
class SearchWorld:
    settings: Settings
    towers: Path

    @property
    def encoder(self) -> ExportedEncoder:
        return open_encoder(self.towers)

    @property
    def index(self) -> ProductIndex:
        return open_index(find_folder(self.settings, self.encoder.encoder_version))

    def write_index(
        self, titles: list[str | None], *, version: str | None = None, text_vector: str = "text_vector"
    ) -> None:
        """Write an index of products p0, p1, ... of these titles; p0 has a picture, and p1 the same vectors as p0.

        If `text_vector` is another name, the index has vectors of this name only.
        """
        encoder = self.encoder
        rows = [
            {
                "product_id": f"p{number}",
                "title": title,
                "category": "玩具>积木" if "积木" in (title or "") else "服装>裙子",
                "price": 10.0 * (number + 1),
                "image": str(self.settings.offline.parent / "p0.png") if number == 0 else None,
                "embedding_us": 1,
                "catalogue_us": 1,
            }
            for number, title in enumerate(titles)
        ]
        text = encoder.encode_texts([title or "" for title in titles])
        image = np.full_like(text, np.nan)
        image[:2] = text[0]
        build_index(
            find_folder(self.settings, encoder.encoder_version),
            version or encoder.encoder_version,
            IndexedProducts(
                pa.Table.from_pylist(rows, INDEX_ROWS),
                {text_vector: text} | ({"image_vector": image} if text_vector == "text_vector" else {}),
                {},
            ),
        )


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    tokenizer = tiny_clip.train_tokenizer(TITLES * 5)
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, root / "encoder")
    export_encoder(str(root / "encoder"), root / "towers", format="onnx", data=None, seed=0)
    return root / "towers"


@pytest.fixture
def world(tmp_path: Path, towers: Path) -> SearchWorld:
    (tmp_path / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "p0.png")
    made = SearchWorld(config.load(tmp_path / "feature_store.yaml"), towers)
    made.write_index([*TITLES])
    return made
