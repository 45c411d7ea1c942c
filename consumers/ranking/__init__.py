"""What features are worth to a ranking model.

impressions.py   the log read and checked
training_set.py  impressions joined, correct in time, with every view of a feature service
history.py       counts over the log strictly before each row
tabular.py       the baseline's features
multimodal.py    the features that come from images and titles, in groups
placebo.py       the same features after products have swapped their pictures and words
truth.py         what a generated shop knows: the attainable and the oracle
rankers.py       LightGBM
metrics.py       AUC, GAUC, log loss, calibration, each under resampled users
lift.py          rankers compared, with intervals
report.py        the page on which a team decides
"""
