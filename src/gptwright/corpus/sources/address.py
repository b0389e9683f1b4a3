"""The network as the crawler may see it: names resolved here, private addresses refused, connections to the checked address only.

A name is resolved once for each connection, every address that it has is checked, and the connection goes to one that was checked. So
neither a redirect nor a name that changes its address between check and use (DNS rebinding) reaches a private network.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
_RELAYS = (ipaddress.ip_network("192.88.99.0/24"), ipaddress.ip_network("2002::/16"))

Resolve = Callable[[str, int], list[str]]


class Refused(Exception):
    """An address that may not be asked."""


class Deadline:
    """The end of the request under way. All streams look at it, so that a server that drips cannot hold one open."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, float("inf")

    def start(self, seconds: float) -> None:
        self._end = self._clock() + seconds

    @property
    def passed(self) -> bool:
        return self._clock() >= self._end

    def left(self, timeout: float | None) -> float:
        """Seconds that an operation may take.

        Raises:
            httpcore.ReadTimeout: the time is over.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for one page is over")
        return left if timeout is None else min(timeout, left)


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, by what it is and by the IPv4 address that it carries inside.

    Source: IANA special-purpose registries (RFC 6890) as ``ipaddress`` holds them; RFC 6052 (NAT64), RFC 3056 (6to4), RFC 7526.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _RELAYS if net.version == ip.version)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the system's order."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses only.

    Args:
        deadline: of the request under way.
        resolver: host and port to addresses.
        allowed: whether an address may be asked.
    """

    def __init__(
        self, deadline: Deadline, resolver: Resolve = resolve, allowed: Callable[[str], bool] = is_public
    ) -> None:
        self._deadline, self._resolve, self._allowed = deadline, resolver, allowed
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check all addresses, connect to the first that answers.

        Raises:
            Refused: one of the name's addresses may not be asked.
            httpcore.ConnectError: no such name, or nobody answers.
        """
        addresses = self._addresses(host.strip("[]"), port)
        for address in addresses:
            if not self._allowed(address):
                name = f"{host} is" if host.strip("[]") == address else f"{host} is {address},"
                raise Refused(
                    f"{name} an address of this machine or of a private network, which crawl.allow_private = true allows"
                )
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = self._plain.connect_tcp(
                    address, port, self._deadline.left(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
                continue
            return _TimedStream(stream, self._deadline)
        raise failed

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never.

        Raises:
            Refused: always.
        """
        raise Refused("sockets of this machine are never asked")

    def _addresses(self, host: str, port: int) -> list[str]:
        """Resolved in a thread: the system's resolver knows no time limit."""
        found: list[str] = []
        failed: list[OSError | UnicodeError] = []

        def work() -> None:
            try:
                found.extend(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(min(self._deadline.left(None), threading.TIMEOUT_MAX))
        if thread.is_alive():
            raise httpcore.ConnectTimeout(f"{host}: the name was not resolved in time")
        if failed:
            raise httpcore.ConnectError(f"{host}: no such name") from failed[0]
        return found


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step ends with the request's time."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _TimedStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
