"""online.

configured.py  this deployment's online store, opened without Feast
row_format.py  the packed row of the online stores, byte by byte
checksum.py  what tells a damaged row from a sound one
precision.py  floats in two bytes or one
encode.py  columns to packed rows
decode.py  packed rows to columns: which can be read together
batch.py  ... and the fields of those that can
catalog.py  what an online store says of itself, so that a reader needs no Feast
stored_views.py  what a store says of a project: its views, their layouts and dictionaries, its services
table.py  the packed rows of one project, whichever store they lie in
view_rows.py  what was read of one view, each entity once
store.py  what an online store must offer
conversation.py  reading in which the next question depends on an answer
opening.py  an online store by its address
lmdb_store.py  the store in an LMDB file
lmdb_whole.py  ... and whether all of it is there
redis_store.py  the store in Redis; put_newer.lua and swap.lua run on the server
redis_conversation.py  ... in which a Redis answers one question while the caller looks at the answer to another
redis_connection.py  where a Redis is, and what to say when it is gone
entity_keys.py  the keys of packed rows
materialize.py  from an offline table to an online store, in bounded memory
pack.py  rows as a batch source names them, to keys and packed rows
materialization_log.py  what of an offline table an online store has
expected_rows.py  offline rows as the packed rows that should be online of them, to compare
request.py  what it asks of which views
feature_batch.py  what it hands out
"""
