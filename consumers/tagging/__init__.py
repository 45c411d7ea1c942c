"""Quality of the predicted tags, on labelled products that no tagger was trained on.

metrics.py   accuracy, macro F1, calibration error, Brier score and coverage, for bootstrap replicates
report.py    the metrics of every tag and variant, with intervals
terminal.py  the report as tables for a terminal
"""
