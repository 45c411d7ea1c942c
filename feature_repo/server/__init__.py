"""What HTTP servers share: `consume serve` and `produce studio`.

    application.py    the HTTP application: monitoring, sign-in, assets, error responses
    access.py         which requests are answered: token, a browser's session, size of a body
    page_service.py   answers page requests: session, bounded workers, error pages
    index_page.py     the page with the routes
    json_request.py   ids and faults of requests in JSON
    errors.py         error codes over HTTP and Arrow Flight, and the code of each error class
    request_log.py    logs and counts requests
    metrics.py        Prometheus metrics of requests and connections
    batching.py       the work of several requests done together
    workers.py        a few threads with a bounded queue
    http_server.py    accepts HTTP connections, a bounded number at a time
    http_protocol.py  one HTTP connection, with bounds on its header, its idle time and its requests
    descriptors.py    the limit of open file descriptors
    shutdown.py       graceful shutdown on SIGTERM and Ctrl-C

The limits are in feature_repo/serving_limits.py, the token and the certificate in feature_repo/auth.py, the frame of
pages in feature_repo/web.
"""
