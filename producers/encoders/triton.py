"""Files of a model repository for Triton Inference Server around the exported towers.

README.md              inputs, outputs, and how to start the server
build_tensorrt.sh      builds the towers as TensorRT plans, on the GPU that will serve them
image_tower/           config.pbtxt, 1/model.onnx
text_tower/            config.pbtxt, 1/model.onnx
"""

from collections.abc import Sequence

from feature_repo.exported.files import IMAGE, OUTPUT, TEXT, VERSION_PARAMETER, EncoderDescription
from producers.encoders.towers import Tower, TowerCheck

MAX_BATCH = 64
"""Largest number of images or texts of a batch."""


def render_config(tower: Tower, description: EncoderDescription) -> str:
    """Return the text of a tower's config.pbtxt, in which Triton reads inputs, output and batch sizes.

    The shapes have no batch axis, because Triton adds it itself. Requests that wait at the same time share a batch;
    none waits for others.

    Args:
        tower: the image or the text tower.
        description: its encoder.
    """
    if tower.name == IMAGE:
        assert description.geometry is not None
        inputs = {"pixels": ("TYPE_UINT8", [description.geometry.height, description.geometry.width, 3])}
    else:
        length = description.row_length if tower.has_fixed_length else -1
        inputs = {name: ("TYPE_INT64", [length]) for name in tower.probes[0]}
    blocks = ",\n".join(
        f'  {{ name: "{name}" data_type: {kind} dims: {dims} }}' for name, (kind, dims) in inputs.items()
    )
    return (
        f'name: "{tower.name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f"input [\n{blocks}\n]\n"
        f'output [\n  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [{description.dim}] }}\n]\n'
        "dynamic_batching { }\n"
        f'parameters {{ key: "{VERSION_PARAMETER}" value: {{ string_value: "{description.encoder_version}" }} }}\n'
    )


def render_tensorrt_script(towers: Sequence[Tower], description: EncoderDescription) -> str:
    """Return the text of a shell script that builds TensorRT plans of the towers beside their ONNX files.

    The plans compute in half precision and take batches of 1 to MAX_BATCH. The script also changes each config.pbtxt,
    so that Triton serves the plans.
    """
    builds = []
    for tower in towers:
        if tower.name == IMAGE:
            assert description.geometry is not None
            sizes = [f"{description.geometry.height}x{description.geometry.width}x3"] * 3
        else:
            shortest = description.row_length if tower.has_fixed_length else description.text.words_length + 1
            sizes = [str(shortest), str(description.row_length), str(description.row_length)]
        shapes = [
            ",".join(f"{name}:{batch}x{size}" for name in tower.probes[0])
            for batch, size in zip((1, MAX_BATCH // 2, MAX_BATCH), sizes, strict=True)
        ]
        builds.append(
            f"trtexec --onnx={tower.name}/1/model.onnx --saveEngine={tower.name}/1/model.plan --fp16 \\\n"
            f"  --minShapes={shapes[0]} --optShapes={shapes[1]} --maxShapes={shapes[2]}\n"
        )
    configs = " ".join(f"{tower.name}/config.pbtxt" for tower in towers)
    return f"""#!/usr/bin/env bash
# Builds TensorRT plans of the towers on the GPU that will serve them. Needs the Triton container's trtexec.
set -euo pipefail
cd "$(dirname "$0")"
{"".join(builds)}sed -i 's/^backend: .*/platform: "tensorrt_plan"/' {configs}
echo "compare with the ONNX towers before use: half precision moves vectors"
"""


def render_readme(description: EncoderDescription, inputs: Sequence[str], checks: Sequence[TowerCheck]) -> str:
    """Return the text of the repository's README.md: inputs and outputs, how to resize, and the figures of the check.

    Args:
        description: the exported encoder.
        inputs: names of the inputs of the text tower.
        checks: one line of a table each, in this order.
    """
    text, geometry, width = description.text, description.geometry, description.dim
    length = (
        f"[n, length], length at most {description.row_length}"
        if text.has_mask
        else f"[n, {description.row_length}], padded to that length with {text.pad_id}"
    )
    rows = [
        f"| {TEXT} | {' and '.join(f'`{name}`' for name in inputs)} int64 {length} | `{OUTPUT}` float32 [n, {width}] |"
    ]
    pictures = f"There is no {IMAGE}: {description.without_images}."
    if geometry is not None:
        shape = f"[n, {geometry.height}, {geometry.width}, 3]"
        rows.insert(0, f"| {IMAGE} | `pixels` uint8 {shape} RGB | `{OUTPUT}` float32 [n, {width}] |")
        to = geometry.resize_to
        resize = (
            f"the shorter side to {to}, proportions kept" if isinstance(to, int) else f"to {to[0]} x {to[1]} pixels"
        )
        pictures = (
            f"Resize images ({resize}; Pillow's filter {geometry.resample}) and crop the middle; the model scales and\n"
            "normalizes."
        )
    words = (
        f"A row has {text.words_length} ids of the shop's words (`words.json`: the different ones in their order, "
        "filled up with 0),\nthen those of `tokenizer.json`.\n"
        if text.words_length
        else "A row has the ids of `tokenizer.json`.\n"
    )
    table = "\n".join(rows)
    figures = "\n".join(f"| {each.name} | {each.probes} | {each.cosine:.7f} |" for each in checks)
    return f"""# {description.encoder_version}

Vectors have unit length; one that cannot be computed is NaN.

| tower | in | out |
| --- | --- | --- |
{table}

{pictures}
{words}
`encoder.json` has all of this for programs; `feature_repo.exported.encoder.open_encoder` reads it.

Lowest cosine to torch, with onnxruntime on the CPU:

| what | probes | cosine |
| --- | --- | --- |
{figures}

To serve: `tritonserver --model-repository=$PWD`. To serve TensorRT plans, run `./build_tensorrt.sh` first.
"""
