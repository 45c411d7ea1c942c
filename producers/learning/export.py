"""Export both towers of an encoder as ONNX in a Triton model repository, checked against torch."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from feature_repo import image_store
from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.exported_encoder import ENCODER_FILE, TOKENIZER_FILE
from feature_repo.image_decoding import UnusableImageError, open_image
from feature_repo.offline import input_files, validation
from producers.encoders import load
from producers.encoders.encoder import Pixels
from producers.encoders.geometry import Geometry

FORMATS = ("onnx",)
PROBES = 64
"""Number of images, and of titles, that the towers are checked with."""
PARTS = ("README.md", "build_tensorrt.sh", ENCODER_FILE, TOKENIZER_FILE, "image_tower", "text_tower")
"""Files and folders of an export."""


def export_encoder(encoder: str, out: Path, *, format: str, data: Path | None, seed: int) -> str:
    """Write a Triton model repository of an encoder; replace an earlier export only if the new one passes its check.

    The probes are the inputs on which the vectors of the exported towers are compared with torch's.

    Args:
        encoder: checkpoint directory or hub name; it is loaded on the CPU.
        out: folder of the repository; it gets PARTS, but no ENCODER_FILE and TOKENIZER_FILE if the tokenizer is written
            in Python. It need not exist, nor need its parents. If it exists, it must be empty or hold an earlier
            export.
        format: one of FORMATS.
        data: shop folder with products.parquet; its first usable images and its first titles, PROBES of each at most,
            are the probes. Only its first 4 * PROBES images are tried. None uses PROBES random ones.
        seed: of random probes; ignored if `data` is given.

    Returns:
        One line with what was written, and one for each tower, image first, with its lowest cosine to torch.

    Raises:
        UsageError: there is no such format.
        NotFoundError: the encoder or products.parquet does not exist.
        InvalidInputError: `out` is a file or holds something else; the encoder has no image tower, or its images need
            more than resizing; or the data has no title or no usable image.
        VitrineError: the encoder cannot be loaded, the extra `export` is not installed, or a cosine of the check is
            below MIN_COSINE.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format!r} is not supported; expected {' or '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or {file.name for file in out.iterdir()} - set(PARTS)):
        raise InvalidInputError(f"{out} holds something that is not an export: name a new or an empty folder")
    from producers.encoders import towers, triton

    towers.import_onnxruntime()
    model: Any = load(encoder, device="cpu")
    if model.geometry is None or not model.has_images:
        raise InvalidInputError(
            f"{encoder}: cannot be exported: it has no image tower, or its image processor does more than resize and "
            "crop; expected a checkpoint of `produce encoder`, CLIP, Chinese-CLIP or SigLIP"
        )
    pixels, titles = _read_probes(data, model.geometry) if data else _draw_probes(model, model.geometry, seed)
    image, text = towers.build_towers(model, pixels, titles)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary)
        checks = []
        for tower in (image, text):
            file = triton.model_path(folder, tower.name)
            file.parent.mkdir(parents=True)
            checks.append(towers.export_tower(tower, file))
            (folder / tower.name / "config.pbtxt").write_text(triton.render_config(tower, model))
        if (tokenizer := _read_tokenizer(model)) is not None:
            (folder / ENCODER_FILE).write_text(json.dumps(_describe_inputs(model), indent=1))
            (folder / TOKENIZER_FILE).write_text(tokenizer)
        (folder / "README.md").write_text(triton.render_readme(model, model.geometry, text, checks))
        script = folder / "build_tensorrt.sh"
        script.write_text(triton.render_tensorrt_script(model, text))
        script.chmod(0o755)
        out.mkdir(exist_ok=True)
        for part in PARTS:
            if (out / part).is_dir():
                shutil.rmtree(out / part)
            (out / part).unlink(missing_ok=True)
            if (folder / part).exists():
                (folder / part).replace(out / part)
    lines = [f"{each.name}: cosine to torch at least {each.cosine:.7f} on {each.probes} probes" for each in checks]
    return "\n".join([f"{out}: {model.version} as ONNX in a Triton model repository", *lines])


def _describe_inputs(model: Any) -> dict[str, Any]:
    """Return what a reader of the towers needs to know to prepare sentences and pictures, see `exported_encoder`."""
    tokenizer, geometry = model.tokenizer, model.geometry
    return {
        "encoder_version": model.version,
        "dim": model.dim,
        "text_length": model.text_length,
        "pads_to_text_length": not model.has_mask,
        "pad_id": tokenizer.pad_token_id or 0,
        "pads_left": tokenizer.padding_side == "left",
        "special_ids": sorted(set(tokenizer.all_special_ids)),
        "image": {
            "height": geometry.height,
            "width": geometry.width,
            "resize_to": geometry.resize_to,
            "resample": geometry.resample,
        },
    }


def _read_tokenizer(model: Any) -> str | None:
    """Return the tokenizer as the text of a tokenizer.json that truncates as the encoder does.

    None if it is written in Python, as that of an assembled encoder is.
    """
    core = getattr(model.tokenizer, "backend_tokenizer", None)
    if core is None:
        return None
    core.no_padding()
    core.enable_truncation(model.text_length, direction=model.tokenizer.truncation_side)
    return core.to_str()


def _read_probes(data: Path, geometry: Geometry) -> tuple[Pixels, Sequence[str]]:
    """Return the first usable images and the first titles of a shop folder, PROBES of each at most.

    Raises:
        NotFoundError: products.parquet does not exist.
        InvalidInputError: it cannot be read, or has no title or no usable image.
    """
    file = data / "products.parquet"
    products = input_files.read_table(file, ["title", "image"])
    validation.require_columns(products, ["title", "image"], file)
    titles = products["title"].drop_null().slice(0, PROBES).to_pylist()
    pixels = []
    for image in products.filter(pc.field("image").is_valid())["image"].slice(0, 4 * PROBES).to_pylist():
        try:
            source = image if isinstance(image, bytes) else image_store.resolve_path(image, data)
            pixels.append(geometry.apply(open_image(source)))
        except UnusableImageError:
            continue  # `produce embeddings` reports it
        if len(pixels) == PROBES:
            break
    if not pixels or not titles:
        raise InvalidInputError(
            f"{file}: no product has a title, or none has a usable image; the towers cannot be checked with it"
        )
    return np.stack(pixels), titles


def _draw_probes(model: Any, geometry: Geometry, seed: int) -> tuple[Pixels, Sequence[str]]:
    """Return images of noise, from fine to coarse, and titles of 1 to 24 random tokens of the model's vocabulary."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (PROBES, geometry.height, geometry.width, 3), dtype=np.uint8)
    for row, image in enumerate(noise):
        step = 2 ** (row % 4)
        coarse = image[::step, ::step].repeat(step, 0).repeat(step, 1)
        noise[row] = coarse[: geometry.height, : geometry.width]
    tokens = rng.integers(0, len(model.tokenizer), (PROBES, 24))
    return noise, [
        model.tokenizer.decode(row[: 1 + number % 24], skip_special_tokens=True) or "1"
        for number, row in enumerate(tokens)
    ]
