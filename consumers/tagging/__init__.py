"""How good the predicted tags are, on labelled products that no tagger has seen.

metrics.py   accuracy, macro F1, calibration error, Brier score, coverage: under bootstrap weights
report.py    every tag and variant, with intervals
terminal.py  the report as tables
"""
