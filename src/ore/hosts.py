"""Which hosts mean this machine only. Nobody is asked: no resolver, no socket."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


def is_loopback(host: str) -> bool:
    """Whether an address or a name means this machine only. A name other than localhost counts as another machine."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_address(host) and _ip(host).is_loopback


def is_address(host: str) -> bool:
    """Whether it is an IP address and no name; an IPv6 address may stand in brackets."""
    try:
        _ip(host)
    except ValueError:
        return False
    return True


def _ip(host: str) -> "IPv4Address | IPv6Address":
    from ipaddress import ip_address  # `ore --help` does not need it

    return ip_address(host.strip("[]"))
