"""Files of a model repository for Triton Inference Server around the exported towers.

README.md              inputs, outputs, and how to start the server
build_tensorrt.sh      builds the towers as TensorRT plans, on the GPU that will serve them
image_tower/           config.pbtxt, 1/model.onnx
text_tower/            config.pbtxt, 1/model.onnx
"""

from pathlib import Path

from producers.encoders.assembled.tokenizer import WORDS_LENGTH, PairTokenizer
from producers.encoders.clip_family import DualEncoder
from producers.encoders.geometry import Geometry
from producers.encoders.towers import IMAGE, OUTPUT, TEXT, Tower, TowerCheck

MAX_BATCH = 64
"""Largest number of images or texts of a batch."""
PREFERRED_BATCHES = (16, 32, 64)
"""Batch sizes that Triton tries to reach while requests wait."""
MAX_QUEUE_DELAY_US = 500
"""Microseconds that a request may wait for others to share its batch."""


def model_path(repository: Path, tower: str) -> Path:
    """Return the path of a tower's ONNX file in a repository, whether or not it exists.

    Args:
        repository: folder of the repository.
        tower: IMAGE or TEXT.
    """
    return repository / tower / "1" / "model.onnx"


def render_config(tower: Tower, encoder: DualEncoder) -> str:
    """Return the text of a tower's config.pbtxt, in which Triton reads inputs, output and batch sizes.

    The shapes have no batch axis, because Triton adds it itself.

    Args:
        tower: the image or the text tower.
        encoder: its encoder, which must have a `geometry`.
    """
    geometry = encoder.geometry
    assert geometry is not None
    if tower.name == IMAGE:
        inputs = {"pixels": ("TYPE_UINT8", [geometry.height, geometry.width, 3])}
    else:
        length = encoder.text_length if tower.has_fixed_length else -1
        inputs = {name: ("TYPE_INT64", [length]) for name in tower.probes[0]}
    blocks = ",\n".join(
        f'  {{ name: "{name}" data_type: {kind} dims: {dims} }}' for name, (kind, dims) in inputs.items()
    )
    preferred = ", ".join(map(str, PREFERRED_BATCHES))
    return (
        f'name: "{tower.name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f"input [\n{blocks}\n]\n"
        f'output [\n  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [{encoder.dim}] }}\n]\n'
        f"dynamic_batching {{\n  preferred_batch_size: [{preferred}]\n"
        f"  max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US}\n}}\n"
    )


def render_tensorrt_script(encoder: DualEncoder, text: Tower) -> str:
    """Return the text of a shell script that builds TensorRT plans of both towers beside their ONNX files.

    The plans compute in half precision and take batches of 1 to MAX_BATCH. The script also changes each config.pbtxt,
    so that Triton serves the plans.

    Args:
        encoder: the encoder, which must have a `geometry`.
        text: its text tower; the script needs the names and lengths of its inputs.
    """
    geometry = encoder.geometry
    assert geometry is not None
    shape = f"{geometry.height}x{geometry.width}x3"
    short, long = (encoder.text_length,) * 2 if text.has_fixed_length else (1, encoder.text_length)

    def shapes(batch: int, length: int) -> str:
        return ",".join(f"{name}:{batch}x{length}" for name in text.probes[0])

    return f"""#!/usr/bin/env bash
# Builds TensorRT plans of both towers on the GPU that will serve them. Needs the Triton container's trtexec.
set -euo pipefail
cd "$(dirname "$0")"
trtexec --onnx={IMAGE}/1/model.onnx --saveEngine={IMAGE}/1/model.plan --fp16 \\
  --minShapes=pixels:1x{shape} --optShapes=pixels:{MAX_BATCH // 2}x{shape} --maxShapes=pixels:{MAX_BATCH}x{shape}
trtexec --onnx={TEXT}/1/model.onnx --saveEngine={TEXT}/1/model.plan --fp16 \\
  --minShapes={shapes(1, short)} --optShapes={shapes(MAX_BATCH // 2, long)} --maxShapes={shapes(MAX_BATCH, long)}
sed -i 's/^backend: .*/platform: "tensorrt_plan"/' {IMAGE}/config.pbtxt {TEXT}/config.pbtxt
echo "compare with the ONNX towers before use: half precision moves vectors"
"""


def render_readme(encoder: DualEncoder, geometry: Geometry, text: Tower, checks: list[TowerCheck]) -> str:
    """Return the text of the repository's README.md: inputs and outputs, how to resize, and the figures of the check.

    Args:
        encoder: the exported encoder.
        geometry: its `geometry`.
        text: its text tower.
        checks: of both towers; one line of a table each, in this order.
    """
    to = geometry.resize_to
    resize = f"the shorter side to {to}, proportions kept" if isinstance(to, int) else f"to {to[0]} x {to[1]} pixels"
    text_inputs = (
        f"`input_ids` int64 [n, {encoder.text_length}], padded to that length with {encoder.tokenizer.pad_token_id}"
        if text.has_fixed_length
        else f"`input_ids` and `attention_mask` int64 [n, length], length at most {encoder.text_length}"
    )
    tokenizer = (
        f"`load(CHECKPOINT).tokenizer` of `producers.encoders`: a row has {WORDS_LENGTH} ids of the shop's words, then "
        "those of the text tower"
        if isinstance(encoder.tokenizer, PairTokenizer)
        else "`tokenizer.json`; `encoder.json` has all of this for programs"
    )
    figures = "\n".join(f"| {each.name} | {each.probes} | {each.cosine:.7f} |" for each in checks)
    return f"""# {encoder.version}

Vectors have unit length; one that cannot be computed is NaN.

| tower | in | out |
| --- | --- | --- |
| {IMAGE} | `pixels` uint8 [n, {geometry.height}, {geometry.width}, 3] RGB | `{OUTPUT}` float32 [n, {encoder.dim}] |
| {TEXT} | {text_inputs} | `{OUTPUT}` float32 [n, {encoder.dim}] |

Resize images ({resize}; Pillow's filter {geometry.resample}) and crop the middle; the model scales and
normalizes. Tokenize titles with {tokenizer}.

Lowest cosine to torch, with onnxruntime on the CPU:

| tower | probes | cosine |
| --- | --- | --- |
{figures}

To serve: `tritonserver --model-repository=$PWD`. To serve TensorRT plans, run `./build_tensorrt.sh` first.
"""
