"""Access to a server: the address that it listens on, the bearer token, the TLS certificate.

All callers share one bearer token. A server without a token may listen on the loopback address only, which the users
of the machine can reach. A server with a token and without a certificate sends the token in clear text: use that on a
trusted network only, or behind a proxy that terminates TLS.
"""

import base64
import binascii
import hmac
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from feature_repo.errors import InvalidInputError, NotFoundError, UsageError

MIN_TOKEN_LENGTH = 16
"""Length of the shortest accepted token, in characters."""


@dataclass(frozen=True)
class TlsCertificate:
    """A certificate chain and its private key, as PEM files. Its dates and its host name are not checked.

    Args:
        chain: file with the certificate chain, the server's certificate first.
        key: file with the private key.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: the files are not a certificate chain and its private key.
    """

    chain: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.chain, self.key):
            if not file.is_file():
                raise NotFoundError(f"{file}: no such file; expected a certificate chain and its private key as PEM")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
        except ssl.SSLError as error:
            raise InvalidInputError(
                f"{self.chain}, {self.key}: not a certificate chain and its private key as PEM ({error})"
            ) from error


@dataclass(frozen=True)
class ServerAccess:
    """Where a server listens and who may call it.

    Args:
        host: host name or IP address to listen on. Of names, only "localhost" counts as a loopback address.
        token: the bearer token that callers must send; None accepts every caller.
        certificate: serve TLS with this certificate; None serves clear text.

    Raises:
        UsageError: `host` is not a loopback address and there is no token.
        InvalidInputError: the token is shorter than MIN_TOKEN_LENGTH or not printable ASCII.
    """

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    certificate: TlsCertificate | None = None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"--host is {self.host}: a server without a token may listen on the loopback address only; "
                f"give --token-file, or --host 127.0.0.1"
            )
        if self.token is not None and (
            len(self.token) < MIN_TOKEN_LENGTH or not self.token.isascii() or not self.token.isprintable()
        ):
            raise InvalidInputError(f"the token must have at least {MIN_TOKEN_LENGTH} printable ASCII characters")

    def is_authorized(self, authorization: str | None) -> bool:
        """Return whether an `Authorization` header carries the token, whose upper and lower case matter.

        The comparison takes the same time wherever the texts differ.

        Args:
            authorization: the header's value, `Bearer TOKEN` or `Basic` with the token as the password (browsers send
                this form; the user name is ignored). The case of `Bearer` and `Basic` does not matter. None means that
                the header is missing.

        Returns:
            True if the token matches or the server has no token; False otherwise, also for a missing header or another
            scheme.
        """
        if self.token is None:
            return True
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            credentials = _decode_password(credentials)
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(credentials.strip().encode("utf-8", "replace"), self.token.encode())


def read_token(file: Path | None) -> str | None:
    """Return the token in a file, without surrounding white space; None if `file` is None.

    The length is not checked here but by ServerAccess, so an empty file gives an empty text.

    Raises:
        InvalidInputError: the file does not exist, cannot be read, or is not ASCII.
    """
    if file is None:
        return None
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{file}: cannot read a token ({type(error).__name__}); expected one line of ASCII"
        ) from error


def _decode_password(encoded: str) -> str:
    """Return the password of Basic credentials; empty if they are malformed."""
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address is one of the loopback interface; of names, only `localhost` is."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
