"""Quality of the predicted tags, on labelled products that no tagger was trained on.

estimates.py  a figure with its interval
metrics.py    accuracy, macro F1, calibration error, Brier score and coverage, for bootstrap replicates
novelty.py    which products the encoder has seen, and when they arrived
recall.py     text-to-image recall of stored vectors
report.py     the metrics of every tag and variant, with intervals
terminal.py   the report as tables for a terminal
"""
