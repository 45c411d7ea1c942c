"""An encoder for other runtimes: both towers as ONNX in a Triton model repository, checked against torch."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from feature_repo import image_store
from feature_repo.errors import UsageError, VitrineError
from feature_repo.images import UnusableImageError, open_image
from feature_repo.offline import input_files, validation
from producers.encoders import load
from producers.encoders.encoder import Pixels
from producers.encoders.geometry import Geometry

FORMATS = ("onnx",)
PROBES = 64
"""Products of the data that the towers are checked with."""
PARTS = ("README.md", "build_tensorrt.sh", "image_tower", "text_tower")


def export_encoder(encoder: str, out: Path, *, format: str, data: Path | None, seed: int) -> str:
    """Write the repository `out`; an earlier export there is replaced, and only by one that passed its check.

    Args:
        encoder: checkpoint directory or hub name.
        out: the repository's folder.
        format: one of FORMATS.
        data: a shop folder whose products are the probes; pictures and titles made by chance if not given.
        seed: of those.

    Returns:
        What was written and how far it is from torch.

    Raises:
        UsageError: the format is not known.
        VitrineError: the encoder cannot be opened, has no image tower or no fixed geometry, the extra `export` is not
            installed, `out` holds something else, or a tower's vectors are not torch's.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format!r} is not known here; {', '.join(FORMATS)} is")
    if out.exists() and (not out.is_dir() or {file.name for file in out.iterdir()} - set(PARTS)):
        raise VitrineError(f"{out} holds something that is no export: name a new or an empty folder")
    from producers.encoders import towers, triton

    towers.import_onnxruntime()
    model = load(encoder, device="cpu")
    if model.geometry is None or not model.has_images:
        raise VitrineError(
            f"{encoder}: an encoder with an image tower whose pictures are resized and cut is exported (the default "
            "one, CLIP, Chinese-CLIP, SigLIP); this one has none, or its processor does more"
        )
    pixels, titles = _of(data, model.geometry) if data else _by_chance(model, model.geometry, seed)
    image, text = towers.build_towers(model, pixels, titles)  # type: ignore[arg-type]  # those with a geometry are dual encoders
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        folder = Path(made)
        checked = []
        for tower in (image, text):
            file = triton.model_path(folder, tower.name)
            file.parent.mkdir(parents=True)
            checked.append(towers.export_tower(tower, file))
            (folder / tower.name / "config.pbtxt").write_text(triton.render_config(tower, model))  # type: ignore[arg-type]
        (folder / "README.md").write_text(triton.render_readme(model, model.geometry, text, checked))  # type: ignore[arg-type]
        script = folder / "build_tensorrt.sh"
        script.write_text(triton.render_tensorrt_script(model, text))  # type: ignore[arg-type]
        script.chmod(0o755)
        out.mkdir(exist_ok=True)
        for part in PARTS:
            if (out / part).is_dir():
                shutil.rmtree(out / part)
            os.replace(folder / part, out / part)
    lines = [f"{each.name}: cosine to torch at least {each.cosine:.7f} on {each.probes} probes" for each in checked]
    return "\n".join([f"{out}: {model.version} as ONNX in a Triton model repository", *lines])


def _of(data: Path, geometry: Geometry) -> tuple[Pixels, Sequence[str]]:
    """Pictures and titles of the first products that have them."""
    file = data / "products.parquet"
    products = input_files.read_table(file, ["title", "image"])
    validation.require_columns(products, ["title", "image"], file)
    titles = products["title"].drop_null().slice(0, PROBES).to_pylist()
    cut = []
    for image in products.filter(pc.field("image").is_valid())["image"].slice(0, 4 * PROBES).to_pylist():
        try:
            source = image if isinstance(image, bytes) else image_store.resolve_path(image, data)
            cut.append(geometry.apply(open_image(source)))
        except UnusableImageError:
            continue  # `produce embeddings` says which and why
        if len(cut) == PROBES:
            break
    if not cut or not titles:
        raise VitrineError(f"{file}: no product with a title, or none with a usable picture, to check the towers with")
    return np.stack(cut), titles


def _by_chance(model: object, geometry: Geometry, seed: int) -> tuple[Pixels, Sequence[str]]:
    """Pictures of noise, from fine to coarse, and titles of the vocabulary's own words, of one word to many."""
    chance = np.random.default_rng(seed)
    noise = chance.integers(0, 256, (PROBES, geometry.height, geometry.width, 3), dtype=np.uint8)
    for row, picture in enumerate(noise):
        step = 2 ** (row % 4)
        coarse = picture[::step, ::step].repeat(step, 0).repeat(step, 1)
        noise[row] = coarse[: geometry.height, : geometry.width]
    tokenizer = model.tokenizer  # type: ignore[attr-defined]
    words = chance.integers(0, len(tokenizer), (PROBES, 24))
    return noise, [tokenizer.decode(row[: 1 + n % 24], skip_special_tokens=True) or "1" for n, row in enumerate(words)]
