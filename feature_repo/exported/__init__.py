"""An encoder that `produce export` wrote, used without torch and without a checkpoint.

    encoder.py  an open export: sentences and pictures to vectors
    texts.py    texts to token ids
    towers.py   a tower run by ONNX Runtime in this process
    triton.py   a tower run by a Triton server
    files.py    the files of an export

Needs tokenizers, Pillow, and ONNX Runtime or tritonclient.
"""
