"""Tuning: an encoder trained further for one use, on the labels of one shop.

The towers stay as they are and their outputs are kept, so a tuning takes minutes on two cores. The small encoder also
gets the texture of pictures, and for sentences its text tower of one layer is trained.

tunable.py    a checkpoint in parts: frozen outputs, heads that are trained, and how to save it
examples.py   which products are the same, which fit a sentence, and batches of them
tasks.py      the loss of a batch for each task
losses.py     the supervised contrastive loss, and the loss of the words of a title
fit.py        the training loop: early stop on held-out products, resumption
measures.py   recall of the same product, average precision of sentences, and what other uses lose
"""
