"""Semantic IDs of products (`product_codes`), by residual k-means on their fused vectors.

run.py       `produce codes`: codes every product version, with a codebook that stays the same
codebook.py  codebooks: training, encoding, quality, files
"""
