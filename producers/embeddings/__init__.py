"""The catalogue to `product_embedding`: nothing is encoded twice.

run.py       what is to be encoded, encoded, and committed in turn
plan.py      which versions, and which contents of them, are to be encoded
existing_rows.py  which rows there are already
vector_cache.py  vectors of what has been encoded, by its hash
row_builder.py  fresh and known vectors put together to rows
remote_jobs.py  the same on a machine without the store: what goes out, what comes back
"""
