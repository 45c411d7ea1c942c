"""`consume gate`: whether the candidate of an encoder upgrade may go into production.

measures.py  coverage, neighbour overlap, tag agreement: candidate and production, from the offline tables
clicks.py    next-click hit rate and the AUC of a ranker on a log, for both versions
options.py   limits of the gates, and what is read of a log
check.py     all gates of one candidate, and the report
"""

from feature_repo import extras

extras.require("store", "deltalake")
