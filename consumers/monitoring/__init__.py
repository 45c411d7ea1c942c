"""Watching features.

ages.py       90m, 6h, 2d: ages as people write them
freshness.py  how late each view is, how much it covers, and what to do first
terminal.py   freshness as a table
"""
