"""How features of the views lie in the online store: the tags that its layout reads (tables/layout.py)."""

HALF = {"storage": "float16"}
"""Vectors in half the bytes, for looking up what is close: of the ten nearest neighbours 99.96% stay
(tests/benchmarks/PRECISION.md). A cosine of two of them moves by up to some 1e-4."""
FEW = {"storage": "dictionary"}
"""Texts of which few differ, as codes. Not brands: a marketplace may have more of them than a dictionary holds."""
