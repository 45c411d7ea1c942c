"""What features are worth to a ranking model.

impressions.py   the log read and checked
training_set.py  impressions joined, correct in time, with every view of a feature service
refusals.py      logs of which nothing can be said
leakage.py  features that know what they cannot
splits.py        where training ends: validation days, then test days
click_counts.py  counts over the log strictly before each row
baseline_features.py  the baseline's features
identity_controls.py  the identity-only twins of relational features, for the baseline
content_features.py  the features that come from images and titles, in groups
content.py       the groups that come from a product's own rows: codes, neighbours, missing
placebo.py       the same features after products have swapped their pictures and words
ground_truth.py  what a generated shop knows: the attainable and the oracle
headroom.py      predicted inputs replaced by the truth one after another
lightgbm_ranker.py  LightGBM
din_ranker.py  a ranker in torch that attends to the history
slices.py        the parts of the test on which a lift is looked at by itself
plan.py          how much is trained, on which rows
prepared_features.py  each group's features, searched for leaks and sorted into bins once
ablation.py  every ranker that is trained: main, ladder, headroom, learning curve
metrics.py       AUC, GAUC, log loss, calibration, each under resampled users (AUC also under users and products)
bootstrap.py  the paired bootstrap
delong.py        the secondary interval, which takes rows for independent
lift.py          rankers compared, with intervals
verdict.py       keep, drop or not proven, by one rule
proxies.py       figures of an encoder that need no ranker, beside its lift
export.py        a training set for whoever trains elsewhere
costs.py         bytes, milliseconds and seconds of each group
run.py           one measurement from end to end
figures.py, report.py   the page on which a team decides
"""
