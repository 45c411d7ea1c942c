"""Watching features.

freshness.py    how late each view is, how much it covers, and what to do first
by_slice.py     the same by slice, and what of the objectives is not met
objectives.py   what is wanted, from a TOML file
slices.py       new products, categories: which products are watched together
lags.py         event-to-online lag, coverage, age of what was served
first_feature.py  how long products that came by a stream waited
taken.py        what materialization has taken of a table, row by row
drift/          whether what comes in now looks like what came in before
consistency.py  whether what is online is what the offline store says
sampling.py     which keys are compared: a sample by hash
history.py      the offline rows of some online keys
verdicts.py     what is wrong with each of them
watcher.py      the checks, again and again beside a service
page.py         what they found last, for people: /status; status.html is the page
exported.py     the same for Prometheus; alerts.yaml and grafana.json are what looks at it
figures.py      what was found, as JSON
terminal.py     what was found, as tables
"""
