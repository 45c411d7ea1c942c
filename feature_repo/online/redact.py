"""Addresses in messages and logs: hosts, and nothing that may be a part of a password."""

import re


def redact_url(url: str) -> str:
    """Return a URL as it may be shown: scheme and hosts, without login, path and query.

    A login that is not percent-encoded, and a password in the place of a port, are left out too.

    Args:
        url: any text. One that holds no scheme is shown only if it holds no `@`, `=` or comma.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if not re.search("[@=,]", url) else "..."
    hosts = re.split("[/?#]", rest.rpartition("@")[2])[0]
    return f"{scheme}://{','.join(map(redact_node, hosts.split(',')))}"


def redact_node(node: str) -> str:
    """Return `host:port` as it may be shown: without what stands in the place of the port if that is no number."""
    host, colon, port = node.rpartition(":")
    return node if not colon or port.isdigit() or node.startswith("[") else f"{host}:..."
