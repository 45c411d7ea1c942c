"""Serve one user and 500 candidates: a 128-d vector, tags, codes, the user's interest and affinity, on Redis.

    python -m tests.benchmarks.serving turns      Flight against the reader plus a bare round trip; HTTP against Flight
    python -m tests.benchmarks.serving stock      against `feast serve` on stock Feast's Redis store
    python -m tests.benchmarks.serving load       concurrent clients for a minute: p50, p99, errors
    python -m tests.benchmarks.serving disturbed  the same while others hold connections and guess tokens: p99, memory
    python -m tests.benchmarks.serving stages     the time of each stage of a request

turns.py, stock.py, load.py   three measurements
disturbed.py, attack.py       the fourth, and the callers that disturb
stages.py                     the time of each stage
rows.py                       the rows in the store
deployment.py                 deployments with these rows, ours and stock Feast's
options.py                    command-line options, and random requests
processes.py                  the servers, each in its own process
bare_flight.py                a Flight server that does nothing

Server and client are two processes on one machine. Every request names another user and other candidates, drawn at
random. The bare round trip sends the same requests and receives the same table, on an open stream. `feast serve`
computes no affinity here, because its caller would have to send the vectors of the history.
"""
