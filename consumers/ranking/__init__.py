"""Measure what features are worth to a ranking model.

training_set.py       impressions joined with every view of a feature service, as of their own time
joined_log.py         reads a log and joins it; what cannot be used goes to the quarantine
leakage.py            checks of a joined log, and the search for features that hold future information
splits.py             which rows train, which decide the verdicts, which test
click_counts.py       counts of impressions and clicks strictly before each row
baseline_features.py  the features of the baseline
identity_controls.py  identity-only counterparts of the relational features, for the baseline
content_features.py   the features that come from images and titles, in groups
placebo.py            the same features after products exchanged their content
ground_truth.py       the truth of a generated shop: the ceiling, and the oracle ablation
lightgbm_ranker.py    gradient-boosted trees
din_ranker.py         a deep interest network, in torch
plan.py               how much is trained, and the names of the rankers
screening.py          which groups the rankers with all features use
prepared_features.py  every group's features, checked for leaks and binned once
ablation.py           trains every ranker: main, leave-one-in and leave-one-out, oracle, learning curve
metrics.py            AUC, GAUC, log loss and calibration under bootstrap weights
bootstrap.py          the paired bootstrap of users and products; DeLong's interval
slices.py             the parts of the test rows that are reported separately
lift.py               differences between rankers, with intervals
verdict.py            keep, drop or not proven, by one rule
power.py              the probability that the rule keeps a group of a given worth
costs.py              bytes, milliseconds and seconds of each group
proxies.py            quality figures of an encoder that need no ranker
run.py                one measurement from the log to the result
result.py             what one measurement found
report.py             the result as HTML, as JSON and as a table
notes.py              sentences that the page and the terminal share
plots.py              the plots of the HTML report
export.py             a training set for use outside Vitrine
impression_dataset.py an exported training set as a torch dataset
feature_meaning.py    what each feature and each group means
"""

from feature_repo import extras

extras.require("rank", "lightgbm", "matplotlib")
