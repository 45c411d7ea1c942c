"""Pairs of products: what they have in common, and the probability that they are the same product.

    title_words.py       titles as words, in Chinese and in languages with spaces; model numbers
    title_statistics.py  how rare words are, hashed
    measures.py          pack size, stage, volume and other measures that a title states
    picture.py           edges and colours of a picture
    metric.py            learned spaces in which the same products are near
    prepared.py          words, numbers, vectors and measures of each product, extracted once
    features.py          the features of a pair
    labels.py            judged pairs, read from CSV
    verifier.py          the classifier, its calibration and its reasons; one file

Functions on Arrow tables and NumPy arrays; nothing here reads a store. Needs SciPy, scikit-learn and
LightGBM, not torch.
"""
