"""What reaches the app's server: what its page needs, of bounded size, and nothing that makes it read elsewhere.

Gradio has routes for much that this app does not have (proxies, custom components, streams, saved sessions) and fetches
addresses that stand where an uploaded file should. None of that is let through.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

from utils.errors import UserError

# What the page asks for; everything else is answered with 404.
ROUTES = re.compile(
    r"/(|config|theme\.css|robots\.txt|favicon\.ico|manifest\.json"
    r"|(assets|static|svelte)/.*"
    r"|gradio_api/(info|startup-events|upload|upload_progress|file=.*|queue/(join|data|status)|heartbeat/\w+|cancel|reset))"
)
UPLOAD = "/gradio_api/upload"
JSON_BYTES = 100_000
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
HEADERS = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]


class Refused(UserError):
    """A request that is not let through; `status` is that of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Gate:
    """ASGI middleware.

    Args:
        app: what answers.
        uploads: the only folder of which a request may name files.
        upload_bytes: largest upload.
    """

    def __init__(self, app, uploads: Path, upload_bytes: int):
        self.app, self.uploads, self.upload_bytes = app, uploads.resolve(), upload_bytes

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] != "websocket":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *HEADERS]}
            await send(message)

        try:
            receive = await self.checked(scope, receive)
        except Refused as refused:
            await answer(send_with_headers, refused)
        else:
            await self.app(scope, receive, send_with_headers)

    async def checked(self, scope, receive):
        """What the request is read through. Raises Refused."""
        path = scope["path"]
        if not ROUTES.fullmatch(path) or ".." in Path(unquote(path)).parts:
            raise Refused(404, "there is nothing here")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        limit = self.upload_bytes + JSON_BYTES if path == UPLOAD else JSON_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            raise Refused(411, "a request says how long it is")
        if int(length) > limit:
            raise Refused(413, f"too large; at most {limit // 1000} kB")
        if path == UPLOAD:
            return receive  # the server reads no more than was announced
        body = await read(receive)
        check_files(body, self.uploads)
        return replay(body, receive)


async def read(receive) -> bytes:
    """The whole body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def replay(body: bytes, receive):
    """A `receive` that gives the body once more, then what comes after it."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def again():
        return parts.pop() if parts else await receive()

    return again


def check_files(body: bytes, uploads: Path) -> None:
    """Raises Refused where a JSON body is none, or names a file that is no upload of this app, or an address."""
    try:
        content = json.loads(body or b"null")
    except (ValueError, RecursionError):
        raise Refused(400, "no JSON") from None
    stack = [content]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            stack += item.values()
            path, url = item.get("path"), item.get("url")
            if path is not None and not is_upload(path, uploads):
                raise Refused(403, "this file was not uploaded here")
            if url is not None and (not isinstance(url, str) or "/gradio_api/file=" not in url):
                raise Refused(403, "addresses are not fetched; upload a file")


def is_upload(path: object, uploads: Path) -> bool:
    """Whether something is the path of a file below the folder of uploads."""
    if not isinstance(path, str) or "\0" in path or "://" in path:
        return False
    try:
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(uploads)
    except (OSError, RuntimeError):  # a name too long, or links in a circle
        return False


async def answer(send, refused: Refused) -> None:
    """A short text with the status."""
    body = str(refused).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
