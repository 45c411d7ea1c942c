"""Measures and formats of evaluations that producers and consumers share.

average_precision.py  average precision of a ranking
caption_scores.py     BLEU-4 and CIDEr-D of captions
muge.py               files of MUGE: pictures, queries, captions, predictions
nearest_products.py   nearest products by exact search, and what two searches share
"""
