"""Groups of products that are the same.

train.py  the pair verifier, trained on judged pairs
"""
