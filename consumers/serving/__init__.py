"""Features of one user and many candidates, over Arrow Flight and over HTTP.

request.py  what is asked for, read from bytes and checked once
feature_lookup.py  what the store holds for that
response.py  what was read, as Arrow: candidates by row, the user's own features once
errors.py  why a request is not answered, in the words of both protocols
limits.py      how much a server takes upon itself
executor.py  where both protocols hand in requests: bounded, on time, logged, counted
access_log.py  one line of JSON for each request
metrics.py     what Prometheus is told
auth.py  where a server listens, who may ask, and its certificate
flight.py      Arrow Flight
http.py        HTTP: JSON for people, an Arrow stream for programs
guard.py       what stands before every HTTP route: token, size of the body
client.py      both, from Python
server.py      both, until told to end
ending.py      told to end: what is in work is finished, what was opened is closed
supervisor.py  several of them, looked after

docs/serving.md shows how to ask without any of this.
"""
