"""Which hosts mean this machine only."""

import pytest

from ore.hosts import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "LocalHost.", "ore.localhost"]
)
def test_this_machine(host: str) -> None:
    """Addresses that reach this machine only, and the names for it."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "10.0.0.1", "192.168.1.2", "example.com", "localhost.example.com", "127.0.0.1.example.com"],
)
def test_whatever_others_may_reach(host: str) -> None:
    """What is not surely loopback counts as public; the wildcard addresses too."""
    assert not is_loopback(host)
