"""Train an encoder on a shop, evaluate it on held-out products, and export it.

encoder.py     the training, and the clicks that it may be aligned with
assembly.py    pretrained towers, with heads trained on the shop
adapter.py     a map from the vectors of one encoder into the space of another, and its loss
evaluation.py  designs held out, recall on them, and the best recall that titles allow
tuning.py      an encoder tuned for one use, with tuning_inputs.py, tuning_uses.py and tuning_report.py
export.py      ONNX towers in a Triton model repository
"""
