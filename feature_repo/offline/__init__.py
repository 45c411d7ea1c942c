"""Delta tables: storage, checks of input, retention, and the point-in-time join. Imports neither Feast nor a store.

storage.py               open a folder or a prefix of a bucket for Delta Lake and Arrow
delta.py                 read, append and overwrite Delta tables
delta_columns.py         which columns earlier versions lack, and how columns are written
delta_blocks.py          append rows that do not fit in memory, such as images, in one commit
delta_files.py           the Parquet files of Delta tables, whoever wrote them
delta_log.py              keep the log of a Delta table short
rewritten_files.py       from which files the rows of a compaction or deletion come
versions.py              rows of a time window, the newest row per key, products on sale
production.py            which encoder version readers get, and the steps of an upgrade
created_time.py          the created timestamp of a run's rows: later than that of every older row
key_ranges.py            split a table into ranges of its key, so that one range fits in memory
csv_text.py              the bytes of a CSV as UTF-8 lines: encoding, separator, header
csv_files.py             CSV files, whose misshapen rows are refused one by one
input_files.py           Parquet and CSV files that a shop supplies
impressions.py           logs of impressions, checked
anonymous_users.py       users of a log who are nobody: guests, ids that stand for many people
validation.py            checks of input rows: text, numbers, timestamps, duplicates
lost_share.py            the limit on the share of a column that is lost
quarantine.py            rejected rows with the reason
encoder_licence.py       the licence of each encoder
training_products.py     which products each encoder was trained on
retention.py             drop corrected rows, delete products and users, vacuum
key_encoding.py          join keys as dense integers
asof.py                  the as-of join on keys and timestamps
training_set.py          training sets: rows, and row numbers into distinct versions
training_set_on_disk.py  training sets larger than memory, in a folder
"""

from feature_repo import extras

extras.require("store", "deltalake")
