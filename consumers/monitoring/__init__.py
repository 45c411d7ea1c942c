"""Monitoring of features.

freshness/      age of the online rows, by view and slice
consistency/    online rows compared with the offline rows
drift/          whether what comes in now looks like what came in before
watcher.py      the checks, again and again beside a service
status_page.py  what they found last, for people: /status; status.html is the page
prometheus.py  the same for Prometheus; alerts.yaml and grafana.json are what looks at it
figures.py      what was found, as JSON
terminal.py     what was found, as tables
"""
