"""Loaded by every Python process that a test starts: connections that leave this machine are refused."""

import ipaddress
import socket


def _is_local(address) -> bool:
    if not isinstance(address, tuple):  # the path of a Unix socket
        return True
    if address[0] in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def _guard(method):
    def connect(self, address):
        if not _is_local(address):
            raise ConnectionRefusedError(f"tests run without network, refused {address}")
        return method(self, address)

    return connect


socket.socket.connect = _guard(socket.socket.connect)
socket.socket.connect_ex = _guard(socket.socket.connect_ex)
