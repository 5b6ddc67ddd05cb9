"""What the gate lets through, without a server behind it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from apps.gate import JSON_BYTES, Gate


def ask(gate: Gate, method: str, path: str, body: bytes = b"", length: int | None = None) -> tuple[int, bytes]:
    """Status and body of one request; 200 and the body that came through where the gate let it pass."""
    said: list = []
    announced = [] if length == -1 else [(b"content-length", str(len(body) if length is None else length).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": announced}
    parts = [{"type": "http.request", "body": body[:5], "more_body": True}, {"type": "http.request", "body": body[5:]}]

    async def receive():
        return parts.pop(0)

    async def send(message):
        said.append(message)

    asyncio.run(gate(scope, receive, send))
    assert b"content-security-policy" in dict(said[0]["headers"])
    return said[0]["status"], said[1]["body"]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    async def behind(scope, receive, send):
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return Gate(behind, tmp_path / "uploads", 1000)


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/assets/a.js", "/gradio_api/file=/tmp/a b.png"])
def test_what_the_page_needs_passes(gate, path: str):
    assert ask(gate, "GET", path)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=http://a.b/", "/docs", "/login", "/gradio_api/component_server", "/gradio_api/run/predict",
     "/assets/../app.py", "/assets/%2e%2e/app.py", "/gradio_api/stream/a", "//", "/configs", "/gradio_api/file"],
)  # fmt: skip
def test_everything_else_is_not_there(gate, path: str):
    assert ask(gate, "GET", path)[0] == 404


def joined(gate: Gate, file: object) -> tuple[int, bytes]:
    return ask(gate, "POST", "/gradio_api/queue/join", json.dumps({"data": [[file], 0.5]}).encode())


def test_files_of_requests_are_uploads(gate, tmp_path: Path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "outside.png").touch()
    (tmp_path / "uploads" / "link.png").symlink_to(tmp_path / "outside.png")
    good = {"path": str(tmp_path / "uploads" / "a" / "a.png"), "url": "http://127.0.0.1/gradio_api/file=a.png"}
    status, body = joined(gate, good)
    assert status == 200 and json.loads(body)["data"][0] == [good]
    for path in ("outside.png", "uploads/../outside.png", "uploads/link.png"):
        assert joined(gate, {"path": str(tmp_path / path)})[0] == 403
    for wrong in ("http://a.b/c.png", "a.png", "", 3, {"a": 1}, "\0", "/" + "x" * 9000, f"file://{good['path']}"):
        assert joined(gate, {"path": wrong})[0] == 403, wrong
    for url in ("http://a.b/c.png", "data:image/png;base64,AAAA", 3, ""):
        assert joined(gate, good | {"url": url})[0] == 403, url


def test_bodies_are_bounded_and_json(gate):
    join = "/gradio_api/queue/join"
    assert ask(gate, "POST", join, b"{}" + b" " * (JSON_BYTES - 2))[0] == 200
    assert ask(gate, "POST", join, b"{}" + b" " * (JSON_BYTES - 1))[0] == 413
    assert ask(gate, "POST", join, b"{}", length=-1)[0] == 411
    assert ask(gate, "POST", join, b"{]")[0] == 400
    assert ask(gate, "POST", join, b"[" * 40_000 + b"]" * 40_000)[0] in (200, 400)
    assert ask(gate, "POST", "/gradio_api/upload", b"no json", JSON_BYTES + 1000) == (200, b"no json")
    assert ask(gate, "POST", "/gradio_api/upload", b"", JSON_BYTES + 1001)[0] == 413
