"""Socket options that let a dead peer be noticed: a machine that vanished sends no FIN."""

import asyncio
import contextlib
import socket

DEAD_AFTER = 15
"""Seconds until a silent black hole ends a connection, both while idle and with unacknowledged bytes."""


def watch_peer(transport: asyncio.BaseTransport) -> None:
    """Turn on TCP keepalive and the user timeout. Does nothing on a Unix socket, whose end is always seen."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # an option this kernel lacks costs promptness, not correctness
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER * 1000)
