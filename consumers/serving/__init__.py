"""Feature server: features of one user and many candidates over Arrow Flight and HTTP.

    request.py        a request: parsed from JSON, checked, fetched from the online store
    response.py       the response as Arrow: candidates by row, the user's own features once
    executor.py       executes requests for features: bounded, with a deadline
    pair_request.py   a request for pairs, parsed from JSON and checked
    pairs.py          answers requests for pairs: products read, scored in batches across requests
    pair_routes.py    pairs over HTTP
    flight.py         Arrow Flight server
    http.py           HTTP application: routes, JSON and Arrow streams
    http_requests.py  what POST routes share: the OpenAPI description, the body, the response
    client.py         Python clients of both protocols
    metrics.py        Prometheus metrics of features and pairs
    run.py            runs `consume serve`: opens what its options name, in one process or several
    server.py         serves both protocols until the shutdown
    supervisor.py     several serving processes, restarted when they end

Connections, access, errors and the request log, which every server has, are in feature_repo/server.
docs/how-to/serve.md shows requests without this package.
"""
