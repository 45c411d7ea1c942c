"""A model repository for Triton Inference Server around the exported towers.

README.md              what goes in, what comes out, how to start the server
build_tensorrt.sh      the same towers as TensorRT plans, on the GPU that will serve them
image_tower/           config.pbtxt, 1/model.onnx
text_tower/            config.pbtxt, 1/model.onnx
"""

from pathlib import Path

from producers.encoders.clip_family import DualEncoder
from producers.encoders.geometry import Geometry
from producers.encoders.towers import IMAGE, OUTPUT, TEXT, Tower, TowerCheck

MAX_BATCH = 64
PREFERRED = (16, 32, 64)
QUEUE_MICROSECONDS = 500
"""How long a request waits for others to share its batch."""


def model_path(repository: Path, tower: str) -> Path:
    """Where the tower's ONNX goes."""
    return repository / tower / "1" / "model.onnx"


def render_config(tower: Tower, encoder: DualEncoder) -> str:
    """config.pbtxt of a tower; Triton adds the axis of the batch itself."""
    geometry = encoder.geometry
    assert geometry is not None
    if tower.name == IMAGE:
        inputs = {"pixels": ("TYPE_UINT8", [geometry.height, geometry.width, 3])}
    else:
        length = encoder.text_length if tower.fixed_length else -1
        inputs = {name: ("TYPE_INT64", [length]) for name in tower.probes[0]}
    blocks = ",\n".join(
        f'  {{ name: "{name}" data_type: {kind} dims: {dims} }}' for name, (kind, dims) in inputs.items()
    )
    preferred = ", ".join(map(str, PREFERRED))
    return (
        f'name: "{tower.name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f"input [\n{blocks}\n]\n"
        f'output [\n  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [{encoder.dim}] }}\n]\n'
        f"dynamic_batching {{\n  preferred_batch_size: [{preferred}]\n"
        f"  max_queue_delay_microseconds: {QUEUE_MICROSECONDS}\n}}\n"
    )


def render_tensorrt_script(encoder: DualEncoder, image: Tower, text: Tower) -> str:
    """Shell commands that build TensorRT plans beside the ONNX files."""
    geometry = encoder.geometry
    assert geometry is not None
    picture = f"{geometry.height}x{geometry.width}x3"
    short, long = (encoder.text_length,) * 2 if text.fixed_length else (1, encoder.text_length)

    def shapes(batch: int, length: int) -> str:
        return ",".join(f"{name}:{batch}x{length}" for name in text.probes[0])

    return f"""#!/usr/bin/env bash
# Builds TensorRT plans of both towers on the GPU that will serve them; needs trtexec of the Triton container's release.
set -euo pipefail
cd "$(dirname "$0")"
trtexec --onnx={IMAGE}/1/model.onnx --saveEngine={IMAGE}/1/model.plan --fp16 \\
  --minShapes=pixels:1x{picture} --optShapes=pixels:{MAX_BATCH // 2}x{picture} --maxShapes=pixels:{MAX_BATCH}x{picture}
trtexec --onnx={TEXT}/1/model.onnx --saveEngine={TEXT}/1/model.plan --fp16 \\
  --minShapes={shapes(1, short)} --optShapes={shapes(MAX_BATCH // 2, long)} --maxShapes={shapes(MAX_BATCH, long)}
sed -i 's/^backend: .*/platform: "tensorrt_plan"/' {IMAGE}/config.pbtxt {TEXT}/config.pbtxt
echo "compare with the ONNX towers before use: half precision moves vectors"
"""


def render_readme(encoder: DualEncoder, geometry: Geometry, text: Tower, checked: list[TowerCheck]) -> str:
    """What a caller has to know."""
    to = geometry.resize_to
    resize = f"the shorter side to {to}, proportions kept" if isinstance(to, int) else f"to {to[0]} x {to[1]} pixels"
    words = (
        f"`input_ids` int64 [n, {encoder.text_length}], padded to that length with {encoder.tokenizer.pad_token_id}"
        if text.fixed_length
        else f"`input_ids` and `attention_mask` int64 [n, length], length at most {encoder.text_length}"
    )
    figures = "\n".join(f"| {each.name} | {each.probes} | {each.cosine:.7f} |" for each in checked)
    return f"""# {encoder.version}

Vectors are of unit length; one that could not be computed is NaN.

| tower | in | out |
| --- | --- | --- |
| {IMAGE} | `pixels` uint8 [n, {geometry.height}, {geometry.width}, 3] RGB | `{OUTPUT}` float32 [n, {encoder.dim}] |
| {TEXT} | {words} | `{OUTPUT}` float32 [n, {encoder.dim}] |

Pictures are resized ({resize}; Pillow's filter {geometry.resample}) and the middle is cut out; scaling and
normalising are in the model. Titles go through the checkpoint's own tokenizer.

Checked against torch with onnxruntime on the CPU, lowest cosine:

| tower | probes | cosine |
| --- | --- | --- |
{figures}

Serve it: `tritonserver --model-repository=$PWD`. As TensorRT plans: `./build_tensorrt.sh`, then serve.
"""
