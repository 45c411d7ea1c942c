"""offline.

delta.py  offline tables
retention.py  what leaves a table, and when
quarantine.py  where bad input goes, with its reason
validation.py  what can be wrong with them
files.py  tables that others hand in: Parquet, CSV
impressions.py  the log of impressions, checked
asof.py  which version of an entity held at a time: the join, on keys and times alone
training_set.py  training sets in normalised form: rows, and row numbers into distinct versions
training_set_on_disk.py  training sets larger than memory, in a folder
versions.py  all rows of a time window, or the newest of each entity
ranges.py  a table cut into ranges of its key, one in memory at a time
activity.py  which products are on sale
key_encoding.py  join keys as dense integers
"""
