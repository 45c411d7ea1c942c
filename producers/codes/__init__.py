"""Vectors to `product_codes`: semantic IDs.

run.py       every product coded by a codebook that stays while products come and go
codebook.py  residual k-means, how good it is, where it lies
"""
