"""Consistency: online rows compared with the rows that the offline store expects.

check.py       checks every view with a sample of keys, or a log of served rows
row_checks.py  finds the fault of each row: missing, extra, stale, different
sampling.py    samples keys by hash
served_log.py  a sample of the rows served, byte for byte
"""
