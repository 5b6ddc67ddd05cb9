"""Tests and the programs they start reach this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest
from pytest_socket import SocketConnectBlockedError

FAR = ("192.0.2.1", 80)  # reserved for documentation, belongs to nobody

PROGRAM = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print(os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"])
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except ConnectionRefusedError as error:
    print(error)
"""


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_this_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        socket.create_connection(server.getsockname()).close()
        thread.join()
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection(FAR, timeout=5)


def test_a_program_started_by_a_test():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 0", f"tests run without network, refused {FAR}"]
