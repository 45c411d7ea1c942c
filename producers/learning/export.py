"""Export an encoder as ONNX in a Triton model repository that is read without torch, checked against torch."""

import shutil
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from feature_repo.errors import InvalidInputError, NotFoundError, UsageError, VitrineError
from feature_repo.exported import files
from feature_repo.exported.encoder import open_encoder
from feature_repo.exported.files import EncoderDescription, TextDescription
from feature_repo.images import image_store
from feature_repo.images.decoding import UnusableImageError, open_image
from feature_repo.images.geometry import Geometry
from feature_repo.offline import input_files, validation
from feature_repo.pairs import verifier as pair_verifiers
from producers.encoders import load
from producers.encoders.adapted.encoder import AdaptedEncoder
from producers.encoders.assembled.tokenizer import WORDS_LENGTH, PairTokenizer
from producers.encoders.tokenizer_files import render_tokenizer

FORMATS = ("onnx",)
PROBES = 64
"""Number of images, and of titles, that the towers are checked with."""
PARTS = (
    "README.md",
    "build_tensorrt.sh",
    files.ENCODER_FILE,
    files.TOKENIZER_FILE,
    files.WORDS_FILE,
    files.FUSION_FILE,
    files.IMAGE,
    files.TEXT,
    pair_verifiers.FOLDER,
)
"""Files and folders of an export."""


def export_encoder(
    encoder: str, out: Path, *, format: str, data: Path | None, seed: int, verifiers: Path | None = None
) -> str:
    """Write a Triton model repository of an encoder; replace an earlier export only if the new one passes its check.

    The check compares the vectors of the exported towers with torch's, and then the vectors of titles and pictures that
    a reader of the export gets with those of the encoder: so tokenizers and the cut of pictures are checked too.

    Args:
        encoder: checkpoint directory or hub name; it is loaded on the CPU.
        out: folder of the repository; it gets PARTS, see `feature_repo.exported.files`. It need not exist, nor need its
            parents. If it exists, it must be empty or hold an earlier export.
        format: one of FORMATS.
        data: shop folder with products.parquet; its first usable images and its first titles, PROBES of each at most,
            are the probes. Only its first 4 * PROBES images are tried. None uses PROBES random ones.
        seed: of random probes; ignored if `data` is given.
        verifiers: folder of pair verifiers, whose newest one of this encoder is exported too; None exports none.

    Returns:
        One line with what was written, and one for each comparison with its lowest cosine.

    Raises:
        UsageError: there is no such format.
        NotFoundError: the encoder, products.parquet or a verifier of this encoder does not exist.
        InvalidInputError: `out` is a file or holds something else; the tokenizer cannot be written as a file; or the
            data has no title or no usable image.
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
    if isinstance(model, AdaptedEncoder):
        raise InvalidInputError(f"{encoder} is an adapter, which has no towers of its own; export the other encoder")
    verifier = None
    if verifiers is not None:
        verifier = pair_verifiers.load_newest_verifier(verifiers, model.version)
        if verifier is None:
            raise NotFoundError(
                f"{verifiers}: no pair verifier of {model.version}; train one: produce groups --pairs FILE.csv"
            )
    geometry: Geometry | None = model.geometry
    pictures, titles = _read_probes(data, geometry) if data else _draw_probes(model, geometry, seed)
    images = [open_image(picture, side=geometry.side) for picture in pictures] if geometry else []
    pixels = np.stack([geometry.apply(image) for image in images]) if geometry else None
    built = towers.build_towers(model, pixels, titles)
    description = _describe(model, verifier.version if verifier else "")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary)
        checks = []
        for tower in built:
            file = files.model_path(folder, tower.name)
            file.parent.mkdir(parents=True)
            checks.append(towers.export_tower(tower, file))
            (folder / tower.name / "config.pbtxt").write_text(triton.render_config(tower, description))
        files.write_description(folder, description)
        _write_tokenizers(model, folder)
        files.write_space(folder, model.space)
        if verifier is not None:
            (folder / pair_verifiers.FOLDER).mkdir()
            pair_verifiers.save_verifier(folder / pair_verifiers.FOLDER, verifier)
        exported = open_encoder(folder)
        checks.append(_check_reader("titles", model.encode_texts(titles), exported.encode_texts(titles)))
        if geometry is not None:
            checks.append(_check_reader("pictures", model.encode_images(images), exported.encode_pictures(pictures)))
        (folder / "README.md").write_text(triton.render_readme(description, list(built[-1].probes[0]), checks))
        script = folder / "build_tensorrt.sh"
        script.write_text(triton.render_tensorrt_script(built, description))
        script.chmod(0o755)
        out.mkdir(exist_ok=True)
        for part in PARTS:
            if (out / part).is_dir():
                shutil.rmtree(out / part)
            (out / part).unlink(missing_ok=True)
            if (folder / part).exists():
                (folder / part).replace(out / part)
    lines = [f"{each.name}: cosine to torch at least {each.cosine:.7f} on {each.probes} probes" for each in checks]
    if description.without_images:
        lines.append(f"no image tower: {description.without_images}")
    if verifier is not None:
        lines.append(f"pair verifier: {verifier.version}")
    return "\n".join([f"{out}: {model.version} as ONNX in a Triton model repository", *lines])


def _check_reader(name: str, expected: Any, actual: Any) -> Any:
    """Return how close the vectors of a reader of the export are to those of the encoder.

    Raises:
        VitrineError: a cosine is below MIN_COSINE.
    """
    from producers.encoders.towers import MIN_COSINE, TowerCheck, compute_lowest_cosine

    lowest = compute_lowest_cosine(expected, actual)
    if lowest < MIN_COSINE:
        raise VitrineError(
            f"{name}: a reader of the export gets other vectors than the encoder: cosine {lowest:.6f} on the worst of "
            f"{len(expected)} probes, expected at least {MIN_COSINE}; nothing was written"
        )
    return TowerCheck(name, len(expected), lowest)


def _describe(model: Any, verifier_version: str) -> EncoderDescription:
    """Return what a reader of the towers needs to know to prepare texts and pictures."""
    tokenizer, geometry = model.tokenizer, model.geometry
    without_images = ""
    if not model.has_images:
        without_images = "the encoder reads text only"
    elif geometry is None:
        without_images = "the encoder's image processor does more than resize and crop"
    if isinstance(tokenizer, PairTokenizer):
        core: Any = tokenizer.text
        is_padded = tokenizer.is_padded
        text = TextDescription(
            length=tokenizer.length,
            has_mask=model.has_mask,
            pad_id=(core.pad_token_id or 0) if is_padded else 0,
            pads_left=is_padded and core.padding_side == "left",
            special_ids=() if core is None else tuple(sorted(set(core.all_special_ids))),
            prompt=tokenizer.prompt,
            lower=tokenizer.lower,
            words_length=WORDS_LENGTH,
            special_word_ids=tuple(sorted(set(tokenizer.words.all_special_ids))),
        )
    else:
        text = TextDescription(
            length=model.text_length,
            has_mask=model.has_mask,
            pad_id=tokenizer.pad_token_id or 0,
            pads_left=tokenizer.padding_side == "left",
            special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
            prompt=getattr(model, "prompt", ""),
            lower=getattr(model, "lower", False),
        )
    return EncoderDescription(model.version, model.dim, text, geometry, without_images, verifier_version)


def _write_tokenizers(model: Any, folder: Path) -> None:
    """Write the tokenizers of an encoder as files of the library `tokenizers`."""
    tokenizer = model.tokenizer
    if isinstance(tokenizer, PairTokenizer):
        (folder / files.WORDS_FILE).write_text(render_tokenizer(tokenizer.words, None))
        if tokenizer.text is not None:
            (folder / files.TOKENIZER_FILE).write_text(render_tokenizer(tokenizer.text, tokenizer.length))
    else:
        (folder / files.TOKENIZER_FILE).write_text(render_tokenizer(tokenizer, model.text_length))


def _read_probes(data: Path, geometry: Geometry | None) -> tuple[list[Path | bytes], Sequence[str]]:
    """Return the first usable images and the first titles of a shop folder, PROBES of each at most.

    Raises:
        NotFoundError: products.parquet does not exist.
        InvalidInputError: it cannot be read, or has no title or no usable image.
    """
    file = data / "products.parquet"
    products = input_files.read_table(file, ["title", "image"])
    validation.require_columns(products, ["title", "image"], file)
    titles = products["title"].drop_null().slice(0, PROBES).to_pylist()
    if geometry is None and titles:
        return [], titles
    pictures: list[Path | bytes] = []
    for image in products.filter(pc.field("image").is_valid())["image"].slice(0, 4 * PROBES).to_pylist():
        try:
            source = image if isinstance(image, bytes) else image_store.resolve_path(image, data)
            open_image(source)
            pictures.append(source)
        except UnusableImageError:
            continue  # `produce embeddings` reports it
        if len(pictures) == PROBES:
            break
    if not pictures or not titles:
        raise InvalidInputError(
            f"{file}: no product has a title, or none has a usable image; the towers cannot be checked with it"
        )
    return pictures, titles


def _draw_probes(model: Any, geometry: Geometry | None, seed: int) -> tuple[list[Path | bytes], Sequence[str]]:
    """Return images of noise, from fine to coarse, and titles of 1 to 24 random tokens of the model's vocabulary."""
    rng = np.random.default_rng(seed)
    pictures: list[Path | bytes] = []
    for number in range(PROBES if geometry else 0):
        assert geometry is not None
        step = 2 ** (number % 4)
        height, width = (int(side * rng.uniform(0.8, 1.6)) for side in (geometry.height, geometry.width))
        noise = rng.integers(0, 256, (height // step + 1, width // step + 1, 3), dtype=np.uint8)
        content = BytesIO()
        Image.fromarray(noise.repeat(step, 0).repeat(step, 1)).save(content, "png")
        pictures.append(content.getvalue())
    tokens = rng.integers(0, len(model.tokenizer), (PROBES, 24))
    return pictures, [
        model.tokenizer.decode(row[: 1 + number % 24], skip_special_tokens=True) or "1"
        for number, row in enumerate(tokens)
    ]
