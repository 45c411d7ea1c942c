"""Encode the catalogue into `product_embedding`; no content is encoded twice.

run.py            plans, encodes and commits, chunk by chunk
plan.py           which catalogue versions, and which of their contents, have to be encoded
served_order.py   which products are encoded first
estimate.py       what a run would do
encoder_check.py  whether an encoder is the expected one
existing_rows.py  which rows the table has already
output_store.py   outputs of towers on disk, by content hash and fingerprint of the tower
tower_outputs.py  vectors made of kept outputs of towers
adapted_vectors.py  vectors mapped from those of another encoder
vector_cache.py   vectors of encoded contents, by content hash
shared_cache.py   fill the cache of a machine from tables in a bucket
forget_contents.py  delete what the caches keep of forgotten products
row_builder.py    new and cached vectors to embedding rows
remote_jobs.py    the same on a machine without the store: export what to encode, commit what comes back
"""
