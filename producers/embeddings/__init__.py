"""Encode the catalogue into `product_embedding`; no content is encoded twice.

run.py            plans, encodes and commits, chunk by chunk
plan.py           which catalogue versions, and which of their contents, have to be encoded
existing_rows.py  which rows the table has already
vector_cache.py   vectors of encoded contents, by content hash
row_builder.py    new and cached vectors to embedding rows
remote_jobs.py    the same on a machine without the store: export what to encode, commit what comes back
"""
