"""Where a Redis is and how to reach it: one server, a cluster, or a master that Sentinels know.

Written as Feast writes it (`connection_string`, `redis_type`, `sentinel_master`), or as a URL:

    redis://user:password@host:6379/0           one server; rediss:// speaks TLS
    redis-cluster://host:7000,host:7001         a cluster, by some of its nodes; ?ssl=true speaks TLS
    redis-sentinel://host:26379/0?master=name   a master, by some of its Sentinels

Options are redis-py's own (`ssl_ca_certs`, `socket_timeout`, ...), of those the ones that a text can give: OPTIONS.
Lost connections are tried again RETRIES times within about two seconds.
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
_WHOLE = ("db", "health_check_interval", "max_connections", "protocol", "reinitialize_steps", "ssl_min_version")
_SECONDS = ("socket_timeout", "socket_connect_timeout")
_SWITCHES = (
    *("ssl", "ssl_check_hostname", "socket_keepalive", "retry_on_timeout"),
    *("require_full_coverage", "read_from_replicas", "dynamic_startup_nodes"),
)
_AS_WRITTEN = (
    *("username", "password", "client_name", "lib_name", "lib_version"),
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers"),
)
OPTIONS = (*_WHOLE, *_SECONDS, *_SWITCHES, *_AS_WRITTEN, "ssl_cert_reqs")
_PORTS = range(1, 65_536)


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
        for host, port in self.nodes:
            if not host or port not in _PORTS:
                raise VitrineError(f"Redis address `{host}:{port}`: wanted host:port, with a port from 1 to 65535")
        for name, value in self.options.items():
            if name not in OPTIONS:
                raise VitrineError(f"Redis at {self}: there is no option `{name}`; there are {', '.join(OPTIONS)}")
            wanted = _wanted(name, value)
            if wanted is not None:
                raise VitrineError(f"Redis at {self}: option `{name}` is {value!r}; wanted {wanted}")

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
        with self._understood():
            if self.kind == "redis_cluster":
                nodes = [redis.cluster.ClusterNode(host, port) for host, port in self.nodes]
                return redis.RedisCluster(startup_nodes=nodes, **options)
            if self.kind == "redis_sentinel":
                sentinel = redis.Sentinel(list(self.nodes), sentinel_kwargs=_TIMEOUTS, **options)
                return _tried(sentinel.master_for(self.master))
            host, port = self.nodes[0]
            return redis.Redis(host=host, port=port, **options)

    def connect_async(self) -> Any:
        """A client for the running event loop."""
        options = {"retry": AsyncRetry(_BACKOFF, RETRIES), **_TIMEOUTS, **self.options}
        with self._understood():
            if self.kind == "redis_cluster":
                nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in self.nodes]
                return redis.asyncio.RedisCluster(startup_nodes=nodes, **options)
            if self.kind == "redis_sentinel":
                sentinel = redis.asyncio.Sentinel(list(self.nodes), sentinel_kwargs=_TIMEOUTS, **options)
                return _tried(sentinel.master_for(self.master))
            host, port = self.nodes[0]
            return redis.asyncio.Redis(host=host, port=port, **options)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn what redis-py says of options that it does not take for this kind of address into one line."""
        try:
            yield
        except (TypeError, ValueError) as error:
            given = ", ".join(self.options)
            raise VitrineError(f"Redis at {self}: {self.kind} does not take the options {given}: {error}") from error

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
        VitrineError: a part is neither, or an option is none, or has no value of its kind.
    """
    nodes, options = [], {}
    for part in filter(None, text.split(",")):
        name, is_option, value = part.partition("=")
        if is_option:
            options[name] = _parsed(name, value)
        else:
            nodes.append(_node(part, 6379))
    return RedisAddress(tuple(nodes), kind, master, options)


def from_url(url: str) -> RedisAddress:
    """An address as a URL (see above).

    Raises:
        VitrineError: the URL is none, of another scheme, or names no host, or an option is none, or has no value of
            its kind.
    """
    wrong = VitrineError(
        f"`{url.rpartition('@')[2]}` is no Redis address; write redis://host:6379, rediss:// with TLS, "
        "redis-cluster:// or redis-sentinel://"
    )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise wrong from error
    kind = {"rediss": "redis"}.get(parts.scheme, parts.scheme.replace("-", "_"))
    if kind not in _KINDS:
        raise wrong
    login, _, hosts = parts.netloc.rpartition("@")
    options: dict[str, Any] = {name: _parsed(name, value) for name, value in parse_qsl(parts.query)}
    username, _, password = login.partition(":")
    if username:
        options["username"] = unquote(username)
    if password:
        options["password"] = unquote(password)
    if parts.scheme == "rediss":
        options["ssl"] = True
    if parts.path.strip("/"):
        options["db"] = _parsed("db", parts.path.strip("/"))
    master = str(options.pop("master", "mymaster"))
    standard = 26379 if kind == "redis_sentinel" else 6379
    return RedisAddress(tuple(_node(host, standard) for host in filter(None, hosts.split(","))), kind, master, options)


def _node(text: str, standard_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, standard_port
    if not (port.isascii() and port.isdigit() and int(port[:6]) in _PORTS):
        raise VitrineError(f"Redis address `{text}`: wanted host:port, with a port from 1 to 65535")
    return host.strip("[]"), int(port)


def _parsed(name: str, value: str) -> Any:
    """An option's value: a number, true, false or null where it reads as one and is not wanted as text."""
    if name in _AS_WRITTEN:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _wanted(name: str, value: Any) -> str | None:
    """What an option's value should have been; None where it is that."""
    if name in _WHOLE:
        return None if type(value) is int and 0 <= value < 2**31 else "a whole number"
    if name in _SECONDS:
        fits = value is None or (type(value) in (int, float) and 0 < value < 1e9)
        return None if fits else "seconds, more than 0, or null"
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) or (name, value) == ("ssl_cert_reqs", None) else "text"


def _tried(client: Any) -> Any:
    """The client of a master, whose options are looked at only when it connects."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client
