"""Freshness: age and coverage of the features, by view and slice.

freshness.py      age of each view's newest rows, coverage, and what to do if it is late
report.py         the same by slice, and the objectives that are missed
lags.py           event-to-online lag, coverage, age of served features
objectives.py     objectives, from a TOML file
event_history.py  offline rows of online keys; which rows are online, and since when
first_feature.py  waiting time of products that a stream wrote
slices.py         active products: all, new ones, by category
"""
