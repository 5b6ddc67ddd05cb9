"""Requests of somebody who means harm: nothing leaks, nothing is fetched, memory is bounded, the app still answers."""

from __future__ import annotations

import io
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.apps.running import Client, file_data, memory_mb
from tests.conftest import ROOT
from tests.extras import needs_extra
from tests.prediction.running import noise

pytestmark = needs_extra("app")
SECRET = "canary-4711"
READS = (
    "/gradio_api/file={0}", "/gradio_api/file=/{0}", "/gradio_api/file=/proc/self/root{0}", "/file={0}", "/file/{0}",
    "/gradio_api/stream/{0}", "/gradio_api/file=..%2f..%2f..%2f..{0}", "/static/..%2f..%2f..%2f..{0}",
    "/static/../../../../../..{0}", "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{0}", "/custom_component/x{0}",
    "/gradio_api/file=file://{0}", "//{0}", "/gradio_api/file=%00{0}", "/svelte/..{0}", "/gradio_api/file={0}%00.png",
)  # fmt: skip
FETCHES = ("/gradio_api/proxy={0}", "/gradio_api/file={0}", "/gradio_api/proxy={0}/gradio_api/file=/etc/passwd")
Ask = Callable[[Client], bytes]


@contextmanager
def trap() -> Iterator[tuple[str, list]]:
    """Address of a server that nobody should call, and who called it."""
    calls: list = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, who = server.accept()
                except OSError:
                    return
                calls.append(who)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png", calls


def black_png(side: int) -> bytes:
    """A PNG of side x side pixels, black, of a few kB, without ever holding it."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    return small.getvalue()[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def run(client: Client, function: int, data: list) -> bytes:
    """A run, and all that was said about it."""
    status, body, session = client.join(function, data)
    return body + (client.result(session).encode() if status == 200 else b"")


def attacks(secret: Path, lure: str, function: int) -> list[Ask]:
    """Different attempts, each of which tells all that it was answered."""
    values = [0.25, 0.25]
    paths = [str(secret), "/etc/passwd", str(ROOT / "README.md"), f"/proc/self/root{secret}"]
    asks: list[Ask] = [lambda c, p=path, r=read: c.request("GET", r.format(p))[1] for path in paths for read in READS]
    asks += [lambda c, r=read: c.request("GET", r.format(lure))[1] for read in FETCHES]
    named = [file_data(path) for path in (*paths, lure, "\0", "x" * 5000, f"{secret}/../{secret.name}")]
    named += [file_data(str(secret), url=lure), {"path": None, "url": lure, "meta": {"_type": "gradio.FileData"}}]
    named += [file_data(path, is_stream=True) for path in (str(secret), lure)]
    named += [file_data("", url="data:image/png;base64,AAAA"), {"url": f"file://{secret}"}, str(secret), lure, [[[]]]]
    asks += [lambda c, n=name: run(c, function, [n, *values]) for name in named]
    asks += [lambda c, n=number: run(c, n, [None, *values]) for number in (-1, 0, 10**9)]
    asks += [lambda c, b=body: c.post("/gradio_api/queue/join", b)[1] for body in (None, [], {}, "a", {"data": {}})]
    deep = b"[" * 50_000 + b"]" * 50_000
    for body in (b"\xff" * 1000, b"{", deep, b"0" * 2_000_000):
        asks.append(lambda c, b=body: c.request("POST", "/gradio_api/queue/join", b)[1])
    names = ("../../../../tmp/canary.png", "/etc/canary.png", "a\0.png", "x" * 3000 + ".png", "..", "%2e%2e%2fa.png")
    asks += [lambda c, n=name: c.upload(n, b"no image")[1] for name in names]
    for method, path in (
        ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/run/predict"), ("GET", "/gradio_api/app_id"),
        ("POST", "/login"), ("DELETE", "/"), ("PUT", "/config"), ("GET", "/docs"), ("GET", "/openapi.json"),
        ("GET", "/gradio_api/deep_link?session_hash=a"), ("POST", "/gradio_api/process_recording"), ("TRACE", "/"),
        ("GET", "/monitoring"), ("GET", "/gradio_api/mcp/"), ("GET", "/?__theme=" + "x" * 20_000),
    ):  # fmt: skip
        asks.append(lambda c, m=method, p=path: c.request(m, p, b"{}" if m != "GET" else None)[1])
    asks.append(lambda c: c.request("GET", "/config", headers={"Host": "evil.example"})[1])
    asks.append(lambda c: c.request("POST", "/gradio_api/upload", (b"x" * 1000 for _ in range(10)))[1])
    return asks


def large_upload(client: Client) -> int:
    """100 MB, sent as a stream; the status."""
    length = 100_000_000
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(length)}
    return client.request("POST", "/gradio_api/upload", (b"x" * 100_000 for _ in range(length // 100_000)), headers)[0]


def uploaded(client: Client, name: str, content: bytes) -> dict:
    status, body = client.upload(name, content)
    assert status == 200, body
    return file_data(json.loads(body)[0], orig_name=name)


@pytest.fixture
def hostile(address, tmp_path: Path):
    """Client, attacks, who was called, and one image that is fine."""
    secret = tmp_path / "secret.png"
    secret.write_text(SECRET)
    client = Client(address)
    image = io.BytesIO()
    Image.fromarray(noise(40, 48, 3)).save(image, "PNG")
    with trap() as (lure, calls):
        function = client.detection()
        yield client, function, attacks(secret, lure, function), calls, image.getvalue()


def check(client: Client, function: int, asks: list[Ask], calls: list, image: bytes, parallel: int) -> None:
    """Everything at once: attacks, images too large, and many who want something at the same time."""
    good = uploaded(client, "good.png", image)
    assert "objects in 48x40" in run(client, function, [good, 0.25, 0.25]).decode()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_mb()
    for ask in asks:
        said = ask(client)
        assert SECRET.encode() not in said and b"root:" not in said and b"Conditional super-resolution for" not in said
        assert b"Traceback" not in said
    assert large_upload(client) == 413
    huge = run(client, function, [uploaded(client, "huge.png", black_png(10_000)), 0.25, 0.25]).decode()
    assert "huge.png" in huge and "objects" not in huge
    with ThreadPoolExecutor(parallel) as pool:
        said = list(pool.map(lambda _: run(client, function, [good, 0.25, 0.25]).decode(), range(parallel)))
    assert sum("objects in 48x40" in it for it in said) >= min(parallel, 16) and all(said)
    assert not calls, "something was fetched"
    assert memory_mb("VmHWM") < before + 300
    assert "objects in 48x40" in run(client, function, [good, 0.25, 0.25]).decode(), "still answers"
    assert not list(Path("/tmp").glob("canary*")) and not Path("/etc/canary.png").exists()


def test_a_few_of_each_kind(hostile):
    client, function, asks, calls, image = hostile
    check(client, function, asks[::4], calls, image, parallel=8)


def test_a_page_of_another_name_gets_no_answer(address):
    """DNS rebinding: a name that the visitor's browser was told to be this machine."""
    client = Client(address)
    for host, status in (("127.0.0.1", 200), ("localhost:7860", 200), ("evil.example", 400), ("127.0.0.1.evil", 400)):
        assert client.request("GET", "/config", headers={"Host": host})[0] == status, host


@pytest.mark.slow
def test_two_hundred(hostile):
    client, function, asks, calls, image = hostile
    times = -(-148 // len(asks))
    assert len(asks) * times + 52 >= 200  # with one large upload, one huge image and 50 at the same time
    check(client, function, asks * times, calls, image, parallel=50)


def test_the_trap_notices():
    with trap() as (lure, calls):
        port = int(lure.split(":")[2].split("/")[0])
        socket.create_connection(("127.0.0.1", port)).close()
        for _ in range(100):
            if calls:
                break
            threading.Event().wait(0.02)
        assert calls
