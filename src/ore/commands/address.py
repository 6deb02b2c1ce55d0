"""May this host be listened on, is this port free, who has it, and by which URL a server is reached.

Asking is all that happens here: the server binds its socket itself, later, and somebody may be quicker.
"""

import errno
from pathlib import Path
from urllib.parse import urlsplit

from ore.errors import StartupError
from ore.hosts import is_loopback
from ore.settings import ServerSettings


def refuse_public_bind(server: ServerSettings) -> None:
    """Raise `StartupError` for an address that others can reach, unless the user insists."""
    if not server.insecure_no_auth and not is_loopback(server.host):
        raise StartupError(
            f"server.host is {server.host!r}, which others may reach, and ORE cannot ask for keys yet; "
            "use 127.0.0.1, or add --insecure-no-auth if everybody who reaches it may use it."
        )


def refuse_taken_port(server: ServerSettings) -> None:
    """Raise `StartupError`, with the fix, when listening at this address cannot work."""
    problem = port_problem(server.host, server.port)
    if problem is not None:
        raise StartupError(problem)


def url_of(server: ServerSettings) -> str | None:
    """Where a server with these settings listens; None when only it would know."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
    bracketed = f"[{host}]" if ":" in host else host
    return f"http://{bracketed}:{server.port}" if server.port else None


def refuse_two_places(data_dir: str | None, config: Path | None) -> None:
    """Raise `StartupError` for options that stand beside `--url` and would be of no effect."""
    if data_dir is not None or config is not None:
        raise StartupError("--url names a server that runs already; leave --data-dir and --config out.")


def refuse_no_url(url: str) -> None:
    """Raise `StartupError` for what is no URL of a server."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise StartupError(f"--url is {url}, which is no URL; write it like http://127.0.0.1:8000.")


def port_problem(host: str, port: int) -> str | None:
    """One sentence on why nobody can listen there now; None when it works."""
    import socket

    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return f"server.host is {host!r}, which this machine cannot look up; use 127.0.0.1 or an address of its own."
    errors = [_bind_error(family, address) for family, _, _, _, address in addresses]
    if errno.EADDRINUSE in errors:
        holder = port_holder(port)
        by = f" by {holder}" if holder else ""
        return f"Port {port} on {host} is taken{by}; stop that, or let ORE take a free port with --port 0."
    if None in errors:  # `localhost` may have an IPv6 address that the machine cannot use
        return None
    if errno.EACCES in errors:
        return f"Port {port} needs administrator rights; choose one above 1023 with --port."
    return f"This machine has no address {host}; use 127.0.0.1 or an address of its own with --host."


def _bind_error(family: int, address: tuple[object, ...]) -> int | None:
    import socket
    import sys

    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there it would allow two listeners at once
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.errno
    return None


def port_holder(port: int) -> str | None:
    """Who listens on a TCP port, such as `python (process 812)`; None when the platform does not tell."""
    try:
        return _holder_by_proc(port) if Path("/proc/net/tcp").exists() else _holder_by_lsof(port)
    except OSError:
        return None


def _holder_by_proc(port: int) -> str | None:
    """Linux: find the listening socket's inode, then the process that has it open."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rsplit(":", 1)[1], 16) == port:
                sockets.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        try:
            if any(str(descriptor.readlink()) in sockets for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # another user's process, or one that just ended
            continue
    return None


def _holder_by_lsof(port: int) -> str | None:
    import shutil
    import subprocess

    program = shutil.which("lsof")
    if program is None:
        return None
    command = [program, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    fields = {line[0]: line[1:] for line in found.splitlines() if line}
    return f"{fields['c']} (process {fields['p']})" if {"c", "p"} <= fields.keys() else None
