"""Ends with status 0 if a kernel without IPv6 is no obstacle to who listens on all addresses. For test_listening.py.

A filter of system calls refuses IPv6 sockets, as such a kernel does.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import platform
import socket
import struct

import grpc

from diffcache_core.net.http_server import HttpServer, Request, Response
from diffcache_core.net.listening import ANY, join_host_port
from diffcache_core.serving_config import ListenConfig
from diffcache_serving.__main__ import check_ports

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT


def take_ipv6_away() -> None:
    load, equal, answer = 0x20, 0x15, 0x06
    lines = [
        (load, 0, 0, 0),  # the call's number
        (equal, 0, 3, SOCKET),
        (load, 0, 0, 16),  # its first argument
        (equal, 0, 1, int(socket.AF_INET6)),
        (answer, 0, 0, REFUSE),
        (answer, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, MODE_FILTER, program, 0, 0) == 0, ctypes.get_errno()


async def hello(_: Request) -> Response:
    return Response(b"hello")


async def main() -> None:
    http = HttpServer(hello)
    await http.start(ANY, 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    http.close()

    server = grpc.aio.server()
    port = server.add_insecure_port(join_host_port(ANY, 0))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
    await server.stop(None)
    check_ports(ListenConfig(host=ANY, port=port, metrics_host=ANY, metrics_port=port + 1, admin_port=port + 2))


if __name__ == "__main__":
    take_ipv6_away()
    try:
        socket.socket(socket.AF_INET6)
    except OSError:
        asyncio.run(main())
    else:
        raise SystemExit("there is IPv6 after all")
