"""Storage without Feast: Arrow tables and NumPy arrays in, Arrow tables and NumPy arrays out.

layout.py      the packed row of the online stores, byte by byte
checksum.py    what tells a damaged row from a sound one
precision.py   floats in two bytes or one
encode.py      columns to packed rows
decode.py      packed rows to columns: which can be read together
batch.py       ... and the fields of those that can
entity_keys.py   the keys of packed rows
record.py        what an online store says of itself, so that a reader needs no Feast
opening.py       an online store by its address
store.py         what an online store must offer
conversation.py  reading in which the next question depends on an answer
stored_views.py  what a store says of a project: its views, their layouts and dictionaries, its services
online_table.py  the packed rows of one project, whichever store they lie in
lmdb_table.py    the store in an LMDB file
lmdb_whole.py    ... and whether all of it is there
materialize.py   from an offline table to an online store, in bounded memory
pack.py          rows as a batch source names them, to keys and packed rows
written.py       what of an offline table an online store has
repack.py        offline rows as the packed rows that should be online of them, to compare
view_rows.py     what was read of one view, each entity once
redis_table.py   the store in Redis; put_newer.lua and swap.lua run on the server
redis_conversation.py  ... in which a Redis answers one question while the caller looks at the answer to another
redis_address.py where a Redis is, and what to say when it is gone
on_ray/          the join and the materialization on more than one machine
"""
