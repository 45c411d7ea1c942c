"""`consume labels`: samples of product pairs for people to judge, and the quality of groups from their judgements.

frame.py      the pairs that can be drawn: each product with its candidates
sample.py     draw pairs with known inclusion probabilities; the same products from week to week
judging.py    the stored pairs of a sample and their answers, for several labellers at once
files.py      write and read CSV and Label Studio's JSON
estimates.py  precision, recall and mean average precision from unequal probabilities
changes.py    which categories got worse
report.py     the report of `consume labels score`
"""
