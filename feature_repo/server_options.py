"""The options that `consume serve` and `produce studio` share: where a server listens, and who may call it."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo.errors import UsageError

MAX_PORT = 65_535

HostOption = Annotated[
    str, typer.Option(help="Address to listen on. Without --token-file it must be a loopback address.")
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(help="File with one line: the bearer token that callers must send.", show_default="no token"),
]
TlsCertificateOption = Annotated[
    Path | None, typer.Option(help="Serve TLS with the certificate chain in this PEM file.")
]
TlsKeyOption = Annotated[Path | None, typer.Option(help="PEM file with the certificate's private key.")]
ConnectionsOption = Annotated[
    int,
    typer.Option(min=1, help="Maximum number of open HTTP connections; fewer if the limit `ulimit -Hn` is lower."),
]
AccessLogOption = Annotated[
    str,
    typer.Option(help="File for one line of JSON per request. - is standard output; an empty text writes no log."),
]


def check_tls_files(certificate: Path | None, key: Path | None) -> None:
    """Raise UsageError if only one of the two files is given."""
    if (certificate is None) != (key is None):
        raise UsageError("give --tls-certificate and --tls-key together")


def describe_address(protocol: str, address: str) -> str:
    """Return `http at http://127.0.0.1:8080`; under TLS, http is called https."""
    return f"{'https' if address.startswith('https:') else protocol} at {address}"
