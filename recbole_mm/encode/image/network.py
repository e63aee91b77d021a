"""Connections to public addresses only.

A column of addresses comes from a file, and a server may redirect. So a name is resolved first, all
its addresses are looked at, and the connection goes to one that was looked at, at every redirect.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# IPv6 addresses that stand for an IPv4 address in their last four bytes: NAT64, mapped, compatible.
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0/96", "::/96")))
_UNICAST = ipaddress.IPv6Network("2000::/3")


class PrivateAddressError(LocationValueError):
    """A name that leads to this machine, a local network, or nowhere in particular."""


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in _CARRIERS):
            return is_public(str(ipaddress.IPv4Address(found.packed[-4:])))
        if found.sixtofour is not None:
            return is_public(str(found.sixtofour))
        return found in _UNICAST and found.is_global
    return found.is_global and not found.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """Resolve a name.

    Raises
    ------
    PrivateAddressError
        One of its addresses is not public.
    LocationParseError
        No name at all.
    OSError
        It cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (UnicodeError, OverflowError) as error:
        raise LocationParseError(host) from error
    addresses = list(dict.fromkeys(str(where[0]) for *_, where in found))
    for address in addresses:
        if not is_public(address):
            raise PrivateAddressError(f"{host} leads to {address}, which is no public address")
    return addresses


class _Public(HTTPConnection):
    """A connection that goes where `public_addresses` has looked."""

    def _new_conn(self) -> socket.socket:
        asked = self._dns_host
        try:
            addresses = public_addresses(asked, self.port or self.default_port)
        except OSError as error:
            raise NameResolutionError(asked, self, error) from error  # type: ignore[arg-type]
        failure: Exception = NewConnectionError(self, f"{asked} has no address")
        for address in addresses:
            # Certificates are checked against the name, which is put back before that.
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            finally:
                self._dns_host = asked
        raise failure


class _PublicTLS(_Public, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Public


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _PublicTLS


def pool_manager(allow_private: bool, **options: Any) -> PoolManager:
    """Return a manager of connections, to public addresses only unless others are allowed."""
    manager = PoolManager(**options)
    if not allow_private:
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
    return manager
