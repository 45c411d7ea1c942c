"""New products and clicks as they come: online at once, offline within the minute.

source.py    what a stream is, whichever carries it: Kafka is one class beside the next
redis_source.py  Redis Streams, by a consumer group
product_rows.py  messages of products to the rows of every product view
clicks.py    messages of clicks to versions of `user_interest`
row_writer.py  rows online at once, and kept for the next commit offline
tagging.py   tags, by the taggers of `produce tags`
metrics.py   what Prometheus is told
open_stream.py  a run, with everything that it needs opened
loop.py      messages taken, written, committed, acknowledged, in this order

At least once: a message is acknowledged when its rows are committed, so one of a process that died comes again. What
it says then is the same, for a row's `created_timestamp` is when the message came, not when it was worked on: online
the same row lies there already, and offline a version that is known is not added again.
"""
