"""New products and clicks from a stream: online at once, offline within a minute.

source.py        the interface of a message stream
redis_source.py  Redis Streams, read as a consumer group
product_rows.py  product messages to rows of every product view
clicks.py        click messages to versions of `user_interest`
row_writer.py    writes rows online at once, and offline at each commit
metrics.py       Prometheus metrics
streamed_versions.py  the encoder versions whose rows are written
open_stream.py   opens everything that a run needs
loop.py          reads, writes, commits and acknowledges, in this order

Delivery is at least once. A message is acknowledged after its rows are committed, so a message of a killed process is
delivered again. Its rows are then the same, because their `created_timestamp` is the arrival time of the message: the
online store already has the row, and a commit skips versions that the offline table has.
"""
