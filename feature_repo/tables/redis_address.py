"""Where a Redis is and how to reach it: one server, a cluster, or a master that Sentinels know.

Written as Feast writes it (`connection_string`, `redis_type`, `sentinel_master`), or as a URL:

    redis://user:password@host:6379/0           one server; rediss:// speaks TLS
    redis-cluster://host:7000,host:7001         a cluster, by some of its nodes; ?ssl=true speaks TLS
    redis-sentinel://host:26379/0?master=name   a master, by some of its Sentinels

Options are redis-py's own (`ssl_ca_certs`, `socket_timeout`, ...). Lost connections are tried again RETRIES times
within about two seconds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from feature_repo.errors import VitrineError

RETRIES = 4
_BACKOFF = ExponentialWithJitterBackoff(cap=1.0, base=0.1)
_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}
_KINDS = ("redis", "redis_cluster", "redis_sentinel")
_AS_WRITTEN = ("username", "password")


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is."""

    nodes: tuple[tuple[str, int], ...]
    kind: str = "redis"
    """One of "redis", "redis_cluster", "redis_sentinel"."""
    master: str = "mymaster"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise VitrineError(f"redis_type `{self.kind}` is none of {', '.join(_KINDS)}")
        if not self.nodes:
            raise VitrineError("the Redis address names no host; wanted host:port, option=value, ...")

    @property
    def is_cluster(self) -> bool:
        return self.kind == "redis_cluster"

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.nodes)

    def connect(self, retries: int = RETRIES) -> Any:
        """A client; it connects when it is first used (a cluster's at once).

        Args:
            retries: of a command whose connection is lost. It may have been done all the same, and its reply be lost:
                0 for one that is not to be done twice.
        """
        options = {"retry": Retry(_BACKOFF, retries), **_TIMEOUTS, **self.options}
        if self.kind == "redis_cluster":
            nodes = [redis.cluster.ClusterNode(host, port) for host, port in self.nodes]
            return redis.RedisCluster(startup_nodes=nodes, **options)
        if self.kind == "redis_sentinel":
            return redis.Sentinel(list(self.nodes), sentinel_kwargs=_TIMEOUTS, **options).master_for(self.master)
        host, port = self.nodes[0]
        return redis.Redis(host=host, port=port, **options)

    def connect_async(self) -> Any:
        """A client for the running event loop."""
        options = {"retry": AsyncRetry(_BACKOFF, RETRIES), **_TIMEOUTS, **self.options}
        if self.kind == "redis_cluster":
            nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in self.nodes]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, **options)
        if self.kind == "redis_sentinel":
            sentinel = redis.asyncio.Sentinel(list(self.nodes), sentinel_kwargs=_TIMEOUTS, **options)
            return sentinel.master_for(self.master)
        host, port = self.nodes[0]
        return redis.asyncio.Redis(host=host, port=port, **options)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what goes wrong with this Redis into one line."""
        try:
            yield
        except redis.exceptions.AuthenticationError as error:
            raise VitrineError(f"Redis at {self} refuses the login: {error}; see the connection's password") from error
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            raise VitrineError(
                f"Redis at {self} does not answer, tried {RETRIES + 1} times: {error}; see that it runs and that the "
                f"address is right, then run this step again"
            ) from error
        except redis.exceptions.RedisError as error:
            advice = "give it more memory, or shorten the views' TTL" if "OOM" in str(error) else "see the server's log"
            raise VitrineError(f"Redis at {self} refuses: {error}; {advice}") from error


def from_connection_string(text: str, kind: str = "redis", master: str = "mymaster") -> RedisAddress:
    """An address as Feast writes it: `host:port,host:port,option=value,...`.

    Raises:
        VitrineError: a part is neither.
    """
    nodes, options = [], {}
    for part in filter(None, text.split(",")):
        name, is_option, value = part.partition("=")
        if is_option:
            options[name] = value if name in _AS_WRITTEN else _parsed(value)
        else:
            nodes.append(_node(part, 6379))
    return RedisAddress(tuple(nodes), kind, master, options)


def from_url(url: str) -> RedisAddress:
    """An address as a URL (see above).

    Raises:
        VitrineError: the URL is of another scheme, or names no host.
    """
    parts = urlsplit(url)
    kind = {"rediss": "redis"}.get(parts.scheme, parts.scheme.replace("-", "_"))
    if kind not in _KINDS:
        raise VitrineError(
            f"`{url.rpartition('@')[2]}` is no Redis address; write redis://host:6379, rediss:// with TLS, "
            "redis-cluster:// or redis-sentinel://"
        )
    login, _, hosts = parts.netloc.rpartition("@")
    options: dict[str, Any] = {name: _parsed(value) for name, value in parse_qsl(parts.query)}
    username, _, password = login.partition(":")
    if username:
        options["username"] = unquote(username)
    if password:
        options["password"] = unquote(password)
    if parts.scheme == "rediss":
        options["ssl"] = True
    if parts.path.strip("/"):
        options["db"] = _parsed(parts.path.strip("/"))
    master = str(options.pop("master", "mymaster"))
    standard = 26379 if kind == "redis_sentinel" else 6379
    return RedisAddress(tuple(_node(host, standard) for host in filter(None, hosts.split(","))), kind, master, options)


def _node(text: str, standard_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, standard_port
    if not port.isdigit():
        raise VitrineError(f"Redis address `{text}`: wanted host:port")
    return host.strip("[]"), int(port)


def _parsed(value: str) -> Any:
    """A number, true, false or null where it reads as one, else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
