"""The catalogue to `product_embedding`: nothing is encoded twice.

run.py       what is to be encoded, encoded, and committed in turn
plan.py      which versions, and which contents of them, are to be encoded
made.py      which rows there are already
contents.py  vectors of what has been encoded, by its hash
assembly.py  fresh and known vectors put together to rows
handover.py  the same on a machine without the store: what goes out, what comes back
"""
