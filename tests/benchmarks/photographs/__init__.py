"""The assembled encoder beside the small one on photographs, and what it costs.

    python -m tests.benchmarks.photographs quality --data DIR --work DIR --record   public sets, products held out
    python -m tests.benchmarks.photographs heads --record     heads trained on kept outputs of 17,000 products
    python -m tests.benchmarks.photographs new-head --record  another head over 100,000 products, without a tower call
    python -m tests.benchmarks.photographs lite0 --record     EfficientNet-Lite0 from JPEG to rows

sets.py        products of a public set, with groups of near-duplicate names and folds
encoders.py    encoders trained without one fold, and their vectors
retrieval.py   text to image on products that the encoder has not seen
quality.py     the measures of each set, by both encoders
tags.py        categories by image, text and words beside TF-IDF alone
cost.py        the seconds of heads, new heads and images
report.py      the table PHOTOGRAPHS.md, and paired intervals

Each encoder is trained anew without each fold of the products (of the classes, on `grocery`), and measured on that
fifth. Intervals are 95%, by the paired bootstrap over groups of near-duplicate names, or classes.
"""
