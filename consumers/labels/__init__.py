"""Pairs to be judged by people, and what their judgements say about the groups.

frame.py      what can be drawn: each product and what was recalled for it
sample.py     draw pairs with known inclusion probabilities; the same products from week to week
files.py      CSV and Label Studio's JSON, out and in
estimates.py  precision, recall and mean average precision from unequal probabilities
changes.py    which categories got worse
report.py     the report of `consume labels score`
"""
