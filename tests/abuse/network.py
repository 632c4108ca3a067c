# ruff: noqa: PTH123
"""Attacks through sockets: internet, names, the host's loopback, its unix sockets, other families."""

from __future__ import annotations

import socket
import struct
from functools import partial

from tried import Told, Tries, main, managed, told


def tcp() -> Told:
    """The host by every address it may have, the cloud's metadata, the world."""
    port = told()["tcp"]
    hosts = [*told()["addresses"], "127.0.0.1", "172.17.0.1", "10.0.2.2", "169.254.169.254", "1.1.1.1", "::1"]
    return managed({host: partial(socket.create_connection, (host, port), 1) for host in hosts})


def udp() -> Told:
    """Packets that nobody has to accept: whether the system took them, which to its own loopback it does."""
    port = told()["udp"]
    hosts = [*told()["addresses"], "172.17.0.1", "169.254.169.254", "1.1.1.1"]
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"out", ("127.0.0.1", port))
    return managed({host: partial(sender.sendto, b"out", (host, port)) for host in hosts})


def names() -> Told:
    """Names, which could carry secrets out."""
    wanted = ["example.com", "secret.example.com", "host.docker.internal", "metadata.google.internal"]
    return managed({name: partial(socket.getaddrinfo, name, 80) for name in wanted})


def unix() -> Told:
    """The host's unix sockets: an abstract one, one with a path, and the engine's own."""

    def connect(address: str | bytes) -> None:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(address)

    paths = [told()["unix"], "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"]
    paths += ["/run/dbus/system_bus_socket", "/run/systemd/private"]
    tries: Tries = {path: partial(connect, path) for path in paths}
    return managed({**tries, "abstract": lambda: connect(b"\0" + told()["abstract"].encode())})


def families() -> Told:
    """Every family and kind but unix, TCP and UDP: raw, packet, netlink, vsock, the kernel's own ciphers."""
    plain = {(1, 1), (1, 2), (1, 3), (1, 5), (2, 1), (2, 2), (10, 1), (10, 2)}
    kinds = [(f, k) for f in range(46) for k in (1, 2, 3, 4, 5, 10) if (f, k) not in plain]
    return managed({f"{f},{k}": partial(socket.socket, f, k) for f, k in kinds})


def protocols() -> Told:
    """Protocols under the allowed families that should need rights."""
    return managed(
        {
            "icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).sendto(
                b"\x08\0\xf7\xff\0\0\0\0", ("1.1.1.1", 0)
            ),
            "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255),
            "device": lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 25, b"eth0\0"),
            "priority": lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 36, struct.pack("i", 9)),
        }
    )


def interfaces() -> Told:
    """The interfaces that are there."""
    with open("/proc/net/dev") as file:
        return {"names": sorted(line.split(":")[0].strip() for line in file if ":" in line)}


if __name__ == "__main__":
    main(globals())
