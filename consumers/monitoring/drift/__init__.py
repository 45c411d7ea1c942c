"""Drift: whether recent products differ from earlier ones.

check.py               compares two time windows and says what to do first
view_statistics.py     the statistics of each view
windows.py             the products of both windows, and their rows in each view
measures.py            statistics of how far two sets of products differ
domain_classifier.py   how well a classifier separates the two sets
neighbour_turnover.py  how many nearest neighbours a product lost with its new version
threshold.py           thresholds from permuted labels, for all statistics together
"""
