"""`consume search`: products for a sentence, by a weighted sum of keywords, looks of pictures, and vectors.

sentence.py       a sentence, checked and cut into words
scoring.py        the scores of products for a sentence, part by part, and their weighted sum
calibration.py    weights and cut-offs from labels
cutoffs.py        the cut-offs of categories for a wanted precision
selection.py      the best products for a sentence, with reasons, near-duplicates collapsed
similar.py        the products that are most like a product or a picture
related.py        the products of the same group, and those with the most similar pictures and titles
similarity_weights.py  how much pictures and titles count in it, from judged pairs
saved.py          selections that are run again, and what came and went since
contact_sheet.py  a selection as a page of pictures, or as CSV
muge_predictions.py  the products for each query of MUGE, as its submission wants them
terminal.py       a page of a selection as a table
evaluation.py     average precision and precision at the cut-off, for queries with known relevant products
report.py         each part alone and their sum beside tuned BM25
"""
