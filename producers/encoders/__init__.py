"""Encode images and texts as unit vectors. `load` opens a checkpoint of any supported family.

Encoding needs torch and transformers, and no store. The package itself imports neither, so that decoding processes
start at once.

encoder.py           the interface of an encoder
checkpoint.py        a directory or a hub name to an encoder
checkpoint_version.py  its folder, name and version, without torch
checkpoint_files.py  configuration, tokenizer and weights of a checkpoint directory
clip_family.py       CLIP, Chinese-CLIP, SigLIP, SigLIP2, VisionTextDualEncoder
blip.py              BLIP, with the methods of the other families
sentence.py          sentence encoders: text only
tiny_clip.py         the default model and its tokenizer
texture.py           texture of pictures beside the output of a small image tower
runtime.py           device, type of numbers, compiled or not
batches.py           n rows through a model, in batches that fit in memory
tokens.py            texts as arrays of token ids
tokenizer_files.py   tokenizers as files for readers without transformers
geometry.py          images resized and cropped to a model's input size
image_loader.py      images decoded in worker processes, through shared memory
prefetch.py          one stage of a pipeline beside the next, in threads
pipeline.py          catalogue rows to vectors, and vectors to embedding rows
licence.py           the licence that a checkpoint states
stage_seconds.py     seconds per stage of an encoding
on_ray.py            the same encoding on a Ray cluster
run.py               the same for a Parquet file, without a store
shards.py            the Parquet parts that run.py writes
whitening.py         an image and a title fused to one vector, whitened by products and by users' clicks
recall.py            text-to-image recall
assembled/           encoders of pretrained towers, with heads trained on the shop
adapted/             an encoder's vectors mapped into the space of another
train.py             the default model or a checkpoint, trained on a catalogue
training/            objectives, batches, the training loop
tuning/              an encoder tuned for one use
captioner.py         lines about images, written and scored by a language head
decoding.py          complete and score lines token by token
towers.py            both towers as ONNX, checked against torch
triton.py            a Triton model repository around them
"""

from feature_repo import extras

extras.require("encode", "torch", "transformers")

from producers.encoders.encoder import Encoder  # noqa: E402 - needs torch

__all__ = ["Encoder", "load"]


def load(
    path_or_name: str, *, device: str | None = None, dtype: str | None = None, is_compiled: bool | None = None
) -> Encoder:
    """Load an encoder from a checkpoint directory or by a hub name such as `openai/clip-vit-base-patch32`.

    Its version is `name@fingerprint`, where the name is that of the directory or the hub. Every call loads it anew.

    Args:
        path_or_name: a directory if one of that path exists, else a hub name.
        device: where the model runs, such as "cpu" or "cuda:0"; None takes the first GPU, or the CPU if there is none.
        dtype: float32, bfloat16 or float16; None takes bfloat16 on a GPU and float32 on a CPU.
        is_compiled: whether the model is compiled by `torch.compile`; None compiles it on a GPU.

    Raises:
        UsageError: there is no such dtype.
        NotFoundError: there is neither such a directory nor such a hub checkpoint.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        InvalidInputError: the directory is no checkpoint, or one of an unsupported architecture.
        CorruptDataError: weights, tokenizer or image processor are missing, unreadable, or do not fit each other.
    """
    from producers.encoders import checkpoint  # imports torch and transformers, which takes seconds

    return checkpoint.load(path_or_name, device=device, dtype=dtype, is_compiled=is_compiled)
