"""Monitoring of the features.

freshness/      age of the features, by view and slice
consistency/    online rows compared with the offline store
drift/          recent products compared with earlier ones
watcher.py      runs the checks at intervals beside a server
status_page.py  the status page of the last results; status.html is its template
prometheus.py   the results as Prometheus metrics; alerts.yaml and grafana.json use them
terminal.py     the results as tables for a terminal and as JSON
"""
