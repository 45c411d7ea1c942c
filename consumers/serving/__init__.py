"""Feature server: features of one user and many candidates over Arrow Flight and HTTP.

    request.py        a request: parsed from JSON, checked, fetched from the online store
    response.py       the response as Arrow: candidates by row, the user's own features once
    errors.py         error codes of both protocols, and the code of each error class
    executor.py       executes requests: deadline, access log, counts
    workers.py        a few threads with a bounded queue
    pair_request.py   a request for pairs, parsed from JSON and checked
    pairs.py          answers requests for pairs: products read, scored in batches across requests
    pair_routes.py    pairs over HTTP
    flight.py         Arrow Flight server
    http.py           HTTP application: routes, JSON and Arrow streams
    access.py         which HTTP requests are answered: token, a browser's session, size of a body
    index_page.py     the page at /: the routes
    http_server.py    accepts HTTP connections, a bounded number at a time
    http_protocol.py  one HTTP connection, with bounds on its header, its idle time and its requests
    descriptors.py    the limit of open file descriptors
    client.py         Python clients of both protocols
    metrics.py        Prometheus metrics of requests
    run.py            runs `consume serve`: opens what its options name, in one process or several
    server.py         serves both protocols until the shutdown
    shutdown.py       graceful shutdown on SIGTERM and Ctrl-C
    supervisor.py     several serving processes, restarted when they end

The limits of a request are in feature_repo/serving_limits.py, the token and the certificate in feature_repo/auth.py.
docs/how-to/serve.md shows requests without this package.
"""
