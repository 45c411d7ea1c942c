"""Redis addresses and clients: one server, a cluster, or a master behind Sentinels.

An address is given as in Feast (`connection_string`, `redis_type`, `sentinel_master`) or as a URL:

    redis://user:password@host:6379/0           one server; rediss:// uses TLS
    redis-cluster://host:7000,host:7001         a cluster, by some of its nodes; ?ssl=true uses TLS
    redis-sentinel://host:26379/0?master=name   a master, by some of its Sentinels

A comma in a password ends it in a connection string, so such a password needs a URL: `connection_string` may be one
too. In a URL, user and password are percent-encoded: %2C is a comma. No message shows a part of a secret.

Options, in the URL's query or after the hosts of a connection string, are redis-py's (`ssl_ca_certs`,
`socket_timeout`, ...); OPTIONS lists those allowed. A command whose connection is lost is retried RETRIES times within
about two seconds.

URLs are not parsed by `redis.from_url`: it knows neither clusters nor Sentinels, and it accepts 5 of the 12 invalid
addresses in tests/feature_repo/online/test_redis.py (for example port 0, a negative timeout, a missing host).
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

from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.online.redact import redact_node, redact_url

RETRIES = 4
"""How often a command whose connection is lost is sent again."""
_BACKOFF = ExponentialWithJitterBackoff(cap=1.0, base=0.1)
_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}
_KINDS = ("redis", "redis_cluster", "redis_sentinel")
_INTEGERS = ("db", "health_check_interval", "max_connections", "protocol", "reinitialize_steps", "ssl_min_version")
_SECONDS = ("socket_timeout", "socket_connect_timeout")
_BOOLEANS = (
    *("ssl", "ssl_check_hostname", "socket_keepalive", "retry_on_timeout"),
    *("require_full_coverage", "read_from_replicas", "dynamic_startup_nodes"),
)
_TEXTS = (
    *("username", "password", "client_name", "lib_name", "lib_version"),
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers"),
)
OPTIONS = (*_INTEGERS, *_SECONDS, *_BOOLEANS, *_TEXTS, "ssl_cert_reqs")
"""Names of redis-py's options that an address may have."""
_SECRETS = {"password", "ssl_password", "username"}
PASSWORD_HINT = (
    "if a password has a comma or another special character, write the address as a URL and the character "
    "percent-encoded: redis://:PASS%2CWORD@host:6379"
)
_PORTS = range(1, 65_536)


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is and how to connect to it. Error messages name the hosts, never the options' secrets.

    Raises:
        InvalidInputError: the kind is unknown, there is no host, a port is out of range, or an option is unknown or
            has a value of the wrong type.
    """

    nodes: tuple[tuple[str, int], ...]
    """(host, port) of the server, of some nodes of the cluster, or of some Sentinels. For one server only the first is
    used."""
    kind: str = "redis"
    """One of "redis", "redis_cluster", "redis_sentinel"."""
    master: str = "mymaster"
    """The name that the Sentinels know the master by; ignored for other kinds."""
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """redis-py's keyword arguments, by name, each one of OPTIONS. Timeouts are in seconds; None waits for ever. The
    defaults are 5 for `socket_timeout` and 2 for `socket_connect_timeout`."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InvalidInputError(f"redis_type is `{self.kind}`; expected one of {', '.join(_KINDS)}")
        if not self.nodes:
            raise InvalidInputError("the Redis address names no host; expected host:port, option=value, ...")
        for host, port in self.nodes:
            if not host or port not in _PORTS:
                raise _invalid_node(f"{host}:{port}")
        for name, value in self.options.items():
            if name not in OPTIONS:
                shown = "an unknown option" if self._has_secrets else f"unknown option `{name}`"
                raise InvalidInputError(f"Redis at {self}: {shown}; options are {', '.join(OPTIONS)}{self._hint()}")
            expected = _expected_value(name, value)
            if expected is not None:
                shown = "not valid" if self._has_secrets else repr(value)
                raise InvalidInputError(
                    f"Redis at {self}: option `{name}` is {shown}; expected {expected}{self._hint()}"
                )

    @property
    def _has_secrets(self) -> bool:
        """Whether other options may be the rest of a password with a comma or an ampersand."""
        return bool(_SECRETS & self.options.keys())

    def _hint(self) -> str:
        return f"; {PASSWORD_HINT}" if self._has_secrets else ""

    @property
    def is_cluster(self) -> bool:
        """Whether this is a cluster, whose keys are spread over slots and nodes."""
        return self.kind == "redis_cluster"

    def __str__(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.nodes)

    def connect(self, retries: int = RETRIES) -> Any:
        """Return a redis-py client. It connects when it is first used, to a cluster at once.

        Args:
            retries: how often a command whose connection is lost is sent again. The server may have executed it, and
                only the reply be lost: pass 0 for commands that must not be executed twice.

        Raises:
            InvalidInputError: an option is not valid for this kind of address.
            redis.exceptions.RedisError: a cluster does not answer. `translate_errors` makes an UnavailableError of it.
        """
        return self._connect(redis, Retry(_BACKOFF, retries))

    def connect_async(self) -> Any:
        """Return an asyncio client of redis-py for the running event loop. It connects when it is first used.

        A command whose connection is lost is sent again RETRIES times.

        Raises:
            InvalidInputError: an option is not valid for this kind of address.
        """
        return self._connect(redis.asyncio, AsyncRetry(_BACKOFF, RETRIES))

    def _connect(self, library: Any, retry: Any) -> Any:
        """Return a client of `redis` or `redis.asyncio`, which have the same classes."""
        options = {"retry": retry, **_TIMEOUTS, **self.options}
        try:
            if self.kind == "redis_cluster":
                nodes = [library.cluster.ClusterNode(host, port) for host, port in self.nodes]
                return library.RedisCluster(startup_nodes=nodes, **options)
            if self.kind == "redis_sentinel":
                client = library.Sentinel(list(self.nodes), sentinel_kwargs=_TIMEOUTS, **options).master_for(
                    self.master
                )
                pool = client.connection_pool
                pool.connection_class(**pool.connection_kwargs)  # otherwise options are checked at the first command
                return client
            host, port = self.nodes[0]
            return library.Redis(host=host, port=port, **options)
        except (TypeError, ValueError) as error:
            names = ", ".join(self.options)
            reason = "" if self._has_secrets else f": {error}"
            raise InvalidInputError(
                f"Redis at {self}: {self.kind} does not take the options {names}{reason}"
            ) from error

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn the redis-py errors of a `with` block into one-line errors that name the address and the repair.

        Other errors pass unchanged.

        Raises:
            UnavailableError: the server does not answer, refuses the login, or refuses the command.
        """
        try:
            yield
        except redis.exceptions.AuthenticationError as error:
            raise UnavailableError(
                f"Redis at {self} refuses the login: {error}; check the password of the connection"
            ) from error
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            raise UnavailableError(
                f"Redis at {self} does not answer after {RETRIES + 1} attempts: {error}; check that it runs and that "
                f"the address is right, then run this step again"
            ) from error
        except redis.exceptions.RedisError as error:
            repair = (
                "give it more memory, or shorten the views' TTL" if "OOM" in str(error) else "check the server's log"
            )
            raise UnavailableError(f"Redis at {self} refuses: {error}; {repair}") from error


def parse_connection_string(text: str, kind: str = "redis", master: str = "mymaster") -> RedisAddress:
    """Parse an address as Feast writes it: `host:port,host:port,option=value,...`.

    Args:
        text: the address. Hosts without a port get 6379; empty parts are ignored; the last of repeated options counts.
            A text with `://` is parsed by `parse_url`.
        kind: "redis", "redis_cluster" or "redis_sentinel"; ignored if the address is a URL, as is `master`.
        master: name of the master behind Sentinels; ignored for other kinds.

    Raises:
        InvalidInputError: the kind is unknown, there is no host, a port is out of range, an option is unknown or has a
            value of the wrong type, or something without `=` follows an option: it may be the rest of a password.
    """
    if "://" in text:
        return parse_url(text)
    nodes: list[tuple[str, int]] = []
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if equals:
            options[name] = _parse_option(name, value)
        elif options:
            raise InvalidInputError(
                f"Redis at {','.join(f'{host}:{port}' for host, port in nodes)}: after the first option, part "
                f"{len(nodes) + len(options) + 1} of the connection string has no `=`; hosts come first, and "
                f"{PASSWORD_HINT}"
            )
        else:
            nodes.append(_parse_node(part, 6379))
    return RedisAddress(tuple(nodes), kind, master, options)


def parse_url(url: str) -> RedisAddress:
    """Parse an address as a URL, as the module's docstring shows. Nothing is connected to.

    Args:
        url: hosts without a port get 6379, Sentinels 26379. User and password are percent-decoded. Of repeated options
            in the query the last counts.

    Raises:
        InvalidInputError: the URL is malformed or of another scheme, there is no host, a port is out of range, or an
            option is unknown or has a value of the wrong type. The message omits the login.
    """
    invalid = InvalidInputError(
        f"`{redact_url(url)}` is not a Redis address; expected redis://host:6379, rediss:// for TLS, "
        "redis-cluster:// or redis-sentinel://"
    )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise invalid from error
    kind = {"rediss": "redis"}.get(parts.scheme, parts.scheme.replace("-", "_"))
    if kind not in _KINDS:
        raise invalid
    if "@" in url and "@" not in parts.netloc:
        raise InvalidInputError(f"`{redact_url(url)}`: user and password cannot be told from the host; {PASSWORD_HINT}")
    login, _, hosts = parts.netloc.rpartition("@")
    options: dict[str, Any] = {name: _parse_option(name, value) for name, value in parse_qsl(parts.query)}
    username, _, password = login.partition(":")
    if username:
        options["username"] = unquote(username)
    if password:
        options["password"] = unquote(password)
    if parts.scheme == "rediss":
        options["ssl"] = True
    if parts.path.strip("/"):
        options["db"] = _parse_option("db", parts.path.strip("/"))
    master = str(options.pop("master", "mymaster"))
    default_port = 26379 if kind == "redis_sentinel" else 6379
    nodes = tuple(_parse_node(host, default_port) for host in filter(None, hosts.split(",")))
    return RedisAddress(nodes, kind, master, options)


def _parse_node(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port of `host:port`, where the port may be missing; raise InvalidInputError if it is invalid."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, default_port
    if not (port.isascii() and port.isdigit() and int(port[:6]) in _PORTS):
        raise _invalid_node(text)
    return host.strip("[]"), int(port)


def _invalid_node(text: str) -> InvalidInputError:
    shown = redact_node(text.rpartition("@")[2])
    return InvalidInputError(f"Redis address `{shown}`: expected host:port, with a port from 1 to 65535")


def _parse_option(name: str, value: str) -> Any:
    """Return a number, true, false or null where the value is one and the option is not text."""
    if name in _TEXTS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _expected_value(name: str, value: Any) -> str | None:
    """Return a description of the values that an option takes; None if `value` is one of them."""
    if name in _INTEGERS:
        return None if type(value) is int and 0 <= value < 2**31 else "a whole number"
    if name in _SECONDS:
        is_valid = value is None or (type(value) in (int, float) and 0 < value < 1e9)
        return None if is_valid else "seconds greater than 0, or null"
    if name in _BOOLEANS:
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) or (name, value) == ("ssl_cert_reqs", None) else "text"
