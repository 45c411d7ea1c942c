"""Products of a few designs that several sellers offer, their index, and an export with a verifier trained on them."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from consumers.pairs.products import IndexedProductReader
from consumers.pairs.scoring import PairScorer
from consumers.serving.metrics import Metrics
from consumers.serving.pairs import PairExecutor, open_verifier
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.content_hash import content_hash
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.fusion import SAME_PRODUCT, SIMILAR, fuse
from feature_repo.index.rows import INDEX_ROWS, PICTURE
from feature_repo.index.update import IndexedProducts, build_index
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.picture import describe_picture
from feature_repo.pairs.verifier import PairVerifier, save_verifier
from feature_repo.serving_limits import PairLimits
from producers.encoders import load, tiny_clip
from producers.groups.train import prepare_catalogue, train_verifier
from producers.learning.export import export_encoder

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLOURS = ["红色", "蓝色", "绿色", "黄色", "黑色", "白色"]
KINDS = ["连衣裙", "积木", "奶瓶", "推车", "童鞋"]


@dataclass(frozen=True)
class PairWorld:
    """n products p0, p1, ..., with their table as `produce groups` reads it."""

    folder: Path
    products: pa.Table
    design: np.ndarray
    encoder: ExportedEncoder
    verifier: PairVerifier

    @property
    def towers(self) -> Path:
        return self.folder / "towers"

    @property
    def index(self) -> Path:
        return self.folder / "index"

    def open_reader(self) -> IndexedProductReader:
        return IndexedProductReader(self.index, self.encoder.encoder_version)

    def open_scorer(self) -> PairScorer:
        return PairScorer(self.encoder, self.verifier)

    def open_executor(self, limits: PairLimits | None = None) -> Callable[[Metrics], PairExecutor]:
        return lambda metrics: PairExecutor(
            self.open_scorer(),
            self.open_reader(),
            limits=limits or PairLimits(),
            deadline_seconds=20.0,
            metrics=metrics,
        )


def make_world(folder: Path, *, side: int = 48, suffix: str = "png") -> PairWorld:
    """Write everything into a folder. Pictures are `side` pixels square, in the format of `suffix`: png or jpg."""
    rows, design = _make_products(folder, side, suffix)
    titles = [row["title"] for row in rows]
    torch.manual_seed(0)
    tokenizer = tiny_clip.train_tokenizer(titles)
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, folder / "encoder")
    encoder = load(str(folder / "encoder"), device="cpu")
    image = encoder.encode_images([Image.open(row["image"]) for row in rows])
    text = encoder.encode_texts(titles)
    products = pa.Table.from_pylist(rows, INDEX_ROWS).select(
        ["product_id", "title", "brand", "category", "price", "image_hash"]
    )
    vectors = {"image_vector": image, "text_vector": text}
    vectors |= {"fused_vector": fuse(image, text, SAME_PRODUCT), "similar_vector": fuse(image, text, SIMILAR)}
    pictures = {PICTURE: np.stack([describe_picture(Path(row["image"])) for row in rows])}
    indexed = IndexedProducts(pa.Table.from_pylist(rows, INDEX_ROWS), vectors, pictures)
    build_index(folder / "index", encoder.version, indexed, has_keywords=False)
    vectors |= pictures
    for name, matrix in vectors.items():
        products = products.append_column(name, matrix_to_lists(matrix))
    left, right = np.triu_indices(len(design), 1)
    judged = LabelledPairs(left, right, design[left] == design[right], np.ones(len(left)))
    prepared, statistics = prepare_catalogue(products)
    trained = train_verifier(prepared, statistics, judged, encoder_version=encoder.version, seed=0, now=NOW)
    save_verifier(folder / "verifiers", trained.verifier)
    export_encoder(
        str(folder / "encoder"), folder / "towers", format="onnx", data=None, seed=0, verifiers=folder / "verifiers"
    )
    exported = open_encoder(folder / "towers", threads=1)
    verifier = open_verifier(folder / "towers", exported)
    assert verifier is not None
    return PairWorld(folder, products, design, exported, verifier)


def _make_products(folder: Path, side: int, suffix: str) -> tuple[list[dict[str, object]], np.ndarray]:
    """Write pictures and return the rows of products, and the design of each."""
    rng = np.random.default_rng(0)
    design = np.repeat(np.arange(30), 3)
    rows = []
    for number, one in enumerate(design.tolist()):
        base = np.random.default_rng(one).integers(0, 256, (4, 4, 3)).repeat(side // 4, 0).repeat(side // 4, 1)
        content = io.BytesIO()
        pixels = np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(content, {"png": "png", "jpg": "jpeg"}[suffix])
        (folder / f"p{number}.{suffix}").write_bytes(content.getvalue())
        title = (
            f"{COLOURS[one % 6]}{KINDS[one % 5]} {'正品' if rng.random() < 0.5 else '包邮'} {120 + 30 * (one % 4)}ml"
        )
        rows.append(
            {
                "product_id": f"p{number}",
                "title": title,
                "image": str(folder / f"p{number}.{suffix}"),
                "category": f"母婴>{KINDS[one % 5]}",
                "brand": f"brand{one % 7}" if rng.random() < 0.7 else None,
                "price": float(20 + one + rng.normal()),
                "image_hash": content_hash(content.getvalue()),
                "catalogue_us": 1,
                "embedding_us": 1,
            }
        )
    return rows, design
