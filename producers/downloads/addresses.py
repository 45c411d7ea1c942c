"""Decide which addresses a host name may be connected to, so that a URL cannot reach into a private network."""

import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddressError(Exception):
    """A host has no address that may be connected to."""


def resolve_allowed(host: str, port: int, allowed: Sequence[Network] = ()) -> list[str]:
    """Return the addresses of a host that may be connected to, in the resolver's order; at least one.

    The caller connects to these and does not look the name up again: a second answer could be another one.

    Args:
        host: a name, or an address without brackets.
        port: the port to connect to.
        allowed: networks that are allowed besides public addresses.

    Raises:
        ForbiddenAddressError: all of its addresses are private, reserved or of this machine.
        OSError: the name cannot be resolved.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    usable = [text for text in dict.fromkeys(found) if _is_allowed(text, allowed)]
    if not usable:
        raise ForbiddenAddressError
    return usable


def is_public(address: Address) -> bool:
    """Return whether an address is of the public internet, and so is any that it holds (NAT64, 6to4, Teredo)."""
    if isinstance(address, ipaddress.IPv6Address):
        held = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            held.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(inner) for inner in held if inner is not None):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return is_public(address) or any(address in network for network in allowed)
