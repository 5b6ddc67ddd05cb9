"""The app in a thread, and a client that says to its server what a page would, or would not."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import app

WAIT_S = 120


@contextmanager
def served(*options: str) -> Iterator[str]:
    """Address of `python app.py OPTIONS` on a free port."""
    found: list = []
    answers, end = threading.Event(), threading.Event()

    def ready(address: str) -> None:
        found.append(address)
        answers.set()
        end.wait()

    def run() -> None:
        try:
            app.main(["--port", "0", "--device", "cpu", *options], ready)
        except BaseException as error:  # shown by the assertion below
            found.append(error)
            answers.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert answers.wait(WAIT_S) and isinstance(found[0], str), found
    try:
        yield found[0]
    finally:
        end.set()
        thread.join(WAIT_S)


@dataclass(frozen=True)
class Client:
    """Requests to a running app as they stand, well-meant or not."""

    address: str

    def request(self, method: str, path: str, body=None, headers: dict | None = None) -> tuple[int, bytes]:
        """Status and body. A server that stops reading answers all the same."""
        connection = http.client.HTTPConnection(self.address.split("/")[2], timeout=WAIT_S)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, path: str, content: object) -> tuple[int, bytes]:
        return self.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})

    def upload(self, name: str, content: bytes) -> tuple[int, bytes]:
        """Upload one file; the answer is a list with its path."""
        mark = secrets.token_hex(8)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        return self.request(
            "POST", "/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={mark}"}
        )

    def detection(self) -> int:
        """Number of the function that finds objects."""
        config = json.loads(self.request("GET", "/config")[1])
        (found,) = (it["id"] for it in config["dependencies"] if len(it["inputs"]) == 3 and len(it["outputs"]) == 8)
        return found

    def join(self, function: int, data: list) -> tuple[int, bytes, str]:
        """Ask for a run: status, body, session."""
        session = secrets.token_hex(6)
        content = {"data": data, "fn_index": function, "session_hash": session}
        return *self.post("/gradio_api/queue/join", content), session

    def result(self, session: str) -> str:
        """All messages of a session until its run has ended."""
        return self.request("GET", f"/gradio_api/queue/data?session_hash={session}")[1].decode()


def file_data(path: str, **more: object) -> dict:
    """How a page names an uploaded file."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png", **more}


def memory_mb(which: str = "VmRSS") -> float:
    """Resident memory of this process."""
    return int(re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000
