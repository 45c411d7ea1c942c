"""Image and text to unit vectors: `load` is the one door for every checkpoint family. Needs torch and transformers, and
no store; but the package itself imports neither, so that decoding processes start at once.

encoder.py      what an encoder is
checkpoint.py   a directory or hub name to an encoder
checkpoint_files.py  what a checkpoint directory holds, read or refused in one clear line
clip_family.py  CLIP, Chinese-CLIP, SigLIP, SigLIP2, VisionTextDualEncoder
blip.py         BLIP, with the calls that the others have
sentence.py     sentence encoders: text alone
batches.py      n rows through a model, smaller batches where memory is short
tokens.py       texts as arrays of token ids
cuda_graphs.py  what a GPU wants: fixed shapes, captured; copies that do not wait
geometry.py     how a picture is cut to the model's size
image_loader.py  pictures decoded in worker processes
resize.py  a batch of them cut to that size
prefetch.py  one stage of a run beside the next
tiny_clip.py  the default model and its tokenizer
train.py        the default model or a checkpoint, trained on a catalogue
training/       objectives, batches, the loop
captioner.py    pictures to selling lines
recall.py       text to image recall, of an encoder too
towers.py       both towers as ONNX, checked against torch
triton.py       a Triton model repository around them
whitening.py  a picture and a title as one vector
pipeline.py  catalogue rows to embedding rows, Arrow to Arrow
on_ray.py       the same on a Ray cluster
run.py          the same for a Parquet file, without a store
shards.py  the Parquet parts that it writes
"""

from feature_repo import extras

extras.require("encode", "torch", "transformers")

from producers.encoders.encoder import Encoder  # noqa: E402 - needs torch

__all__ = ["Encoder", "load"]


def load(path_or_name: str, *, device: str | None = None) -> Encoder:
    """Open a checkpoint directory, or a hub name such as `openai/clip-vit-base-patch32`.

    Args:
        device: where the model runs, such as "cpu" or "cuda:0"; the first GPU, else the CPU, if not given.

    Raises:
        VitrineError: there is no such directory or reachable hub, the checkpoint is of an architecture that is not
            read here, or its weights, tokenizer or image processor are missing or do not fit.
    """
    from producers.encoders import checkpoint  # torch and transformers, seconds to import

    return checkpoint.load(path_or_name, device=device)
