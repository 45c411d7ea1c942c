"""Where a server listens, who may ask, and its certificate.

A bearer token is one secret that all callers share. Without one a server listens on the loopback alone, whose users are
those of the machine. With a token but without a certificate the token crosses the network in clear text: for networks
that are trusted, or behind a proxy that speaks TLS.
"""

import base64
import binascii
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feature_repo.errors import UsageError, VitrineError

MIN_TOKEN_LETTERS = 16


@dataclass(frozen=True)
class Certificate:
    """PEM files that prove who the server is."""

    chain: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.chain, self.key):
            if not file.is_file():
                raise VitrineError(f"{file}: no such file; wanted a certificate chain and its private key as PEM")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
        except ssl.SSLError as error:
            raise VitrineError(
                f"{self.chain}, {self.key}: no certificate chain and its private key as PEM ({error})"
            ) from error


@dataclass(frozen=True)
class Door:
    """How a server may be reached.

    Raises:
        UsageError: it would be open to others than this machine's users, without a token.
        VitrineError: the token is too short, or has letters that no HTTP header holds.
    """

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        if self.token is None and not _is_loopback(self.host):
            raise UsageError(
                f"--host is {self.host}: without a token only the loopback is served; give --token-file, "
                f"or --host 127.0.0.1"
            )
        if self.token is not None and (
            len(self.token) < MIN_TOKEN_LETTERS or not self.token.isascii() or not self.token.isprintable()
        ):
            raise VitrineError(f"the token must be at least {MIN_TOKEN_LETTERS} printable ASCII letters")

    def admits(self, authorization: str | None) -> bool:
        """Whether a header `Authorization` has the token: as Bearer, or as the password of Basic, for browsers."""
        if self.token is None:
            return True
        scheme, _, said = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            said = _password(said)
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(said.strip().encode("utf-8", "replace"), self.token.encode())


def see_free(host: str, *, flight: Sequence[int], http: int) -> None:
    """See that a server can listen at each port, before anything is opened for it; 0 and -1 name none.

    Raises:
        VitrineError: a port is taken, or the host is no address of this machine.
    """
    options = dict.fromkeys(flight, "--flight-port") | {http: "--http-port"}
    for port in options.keys() - {0, -1}:
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # servers do: after one that has ended
                    probe.bind(address)
        except OSError as error:
            raise VitrineError(
                f"nobody can listen at {host}:{port} ({error.strerror}); if another server runs there, name another "
                f"{options[port]}, or -1 for none"
            ) from error


def read_token(file: Path | None) -> str | None:
    """The token in a file, without the line's end.

    Raises:
        VitrineError: the file cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise VitrineError(f"{file}: no readable token ({type(error).__name__}); wanted one line of ASCII") from error


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
