"""captions.

run.py  pictures to `product_caption`
"""
