"""Serving one user and 500 candidates: a 128-d vector, tags, codes, the user's interest, affinity; Redis behind.

    python -m tests.benchmarks.serving turns    beside the fast reader plus a bare Flight round trip, and HTTP beside it
    python -m tests.benchmarks.serving stock    beside `feast serve` on stock Feast's Redis store
    python -m tests.benchmarks.serving load     clients at once, for a minute: p50, p99, errors
    python -m tests.benchmarks.serving stages   where the time of a request goes

turns.py, stock.py, load.py   the three measurements
stages.py                     what they are made of
rows.py                       what is in the store
world.py                      a deployment of it, ours or stock Feast's
asked.py                      who asks for what
running.py                    the servers, each in a process of its own
bare.py                       a Flight server that does nothing

Server and client are two processes on one machine. Every request names another user and other candidates, drawn at
random. The bare round trip has the same table and the same requests, on an open stream, and its server does nothing.
`feast serve` computes no affinity here: it would want the history's vectors from its caller.
"""
