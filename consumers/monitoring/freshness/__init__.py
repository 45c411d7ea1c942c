"""freshness.

freshness.py  how late each view is, how much it covers, and what to do first
report.py  the same by slice, and what of the objectives is not met
lags.py  event-to-online lag, coverage, age of what was served
objectives.py  what is wanted, from a TOML file
event_history.py  the offline rows of some online keys
first_feature.py  how long products that came by a stream waited
slices.py  new products, categories: which products are watched together
taken.py  what materialization has taken of a table, row by row
"""
