"""Packed rows in an online store: written by materialization, read in batches, without Feast.

store.py                what an online store must offer, and pipelined reading
open_store.py           open a store by URL or as feature_store.yaml describes it
lmdb_store.py           the store in an LMDB file
redis_store.py          the store in Redis; put_newer.lua and swap.lua run on the server
redis_connection.py     Redis addresses and clients
redact.py               addresses as they may be shown: without logins
row_format.py           the packed row, byte by byte, and its checksum
quantization.py         floats as float16 or int8
encode.py               columns to packed rows
decode.py               packed rows to columns, and the status of each row
row_matrix.py           packed rows of one layout as a matrix of bytes, and its columns
entity_keys.py          the keys of packed rows
catalog.py              what a store records about a project: views, layouts, dictionaries, services
store_catalog.py        the catalog of one project in a store: read, kept current, changed
table.py                the packed rows of one project: columns in, columns out
request_plan.py         the views and rows that a fetch reads
feature_batch.py        the features that a fetch returns
materialize.py          write an offline table to an online store, in bounded memory
newest_rows.py          which rows are the newest of their entity in a run
materialization_log.py  what of an offline table is online
expected_rows.py        the packed rows that should be online, and their differences from stored ones
"""
