"""What stands before the standalone server: only this page may talk to it, and the page talks to nobody else.

Gradio's own pages ask font servers and script hosts, its old versions answer any web site (CORS), and all of
them offer routes for uploads, files and proxying that the tab has no use for. So requests with a foreign Host
(DNS rebinding) or a foreign Origin are refused, such routes are closed, links to other hosts are taken out of
the page, and a Content-Security-Policy forbids the browser whatever is left. Of the files, those that the tab
itself has handed out can be fetched, as downloads that cannot act.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from lib_toolkit.ui.handouts import HANDED_OUT

Scope: TypeAlias = "MutableMapping[str, Any]"
Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_CLOSED = re.compile(r"^(/gradio_api)?/(upload|file[=/]|proxy[=/]|stream|login|logout|monitoring|component_server)")
_FILE = re.compile(r"/(?:gradio_api/)?file=(.+)", re.DOTALL)
_INERT = "default-src 'none'; sandbox"
_FOREIGN = re.compile(
    r"<link\b[^>]*?href\s*=\s*[\"']https?://[^>]*>"
    r"|<script\b[^>]*?src\s*=\s*[\"']https?://[^>]*>\s*</script>"
    r"|<meta\b[^>]*?content\s*=\s*[\"']https?://[^>]*>",
    re.IGNORECASE | re.DOTALL,
)


class Guard:
    """Wraps the server's application. ``head`` is put at the end of the page's head; ``hosts`` are the names under
    which the server may be called, None for any."""

    def __init__(self, application: Application, head: str, hosts: frozenset[str] | None) -> None:
        self._application = application
        self._head = head
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._application(scope, receive, send)
        elif (refusal := self._refusal(scope)) is not None:
            await _refuse(scope, receive, send, *refusal)
        elif _FILE.fullmatch(scope["path"]):
            await self._application(scope, receive, _Download(send))
        elif scope["type"] == "http":
            await self._application(_uncompressed(scope), receive, _Page(send, self._head))
        else:
            await self._application(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, "This server answers only to the name it was started with."
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Another web site may not use this server."
        if headers.get("sec-fetch-site") == "cross-site" and scope.get("method", "GET") != "GET":
            return 403, "Another web site may not use this server."
        if _CLOSED.match(scope["path"]) and not _is_handed_out(scope):
            return 404, "There is nothing here."
        return None


def _is_handed_out(scope: Scope) -> bool:
    """Whether a request asks for a file that holds what the tab has handed out, and nothing else."""
    asked = _FILE.fullmatch(scope["path"])
    if asked is None or scope.get("method") not in {"GET", "HEAD"} or "\0" in asked[1]:
        return False
    return HANDED_OUT.holds(Path(asked[1]))


def _name(host: str) -> str:
    """A Host header without its port: ``[::1]:80`` → ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _uncompressed(scope: Scope) -> Scope:
    """The request without the wish for compression, so that the page can be read on its way."""
    headers = [(key, value) for key, value in scope["headers"] if key.lower() != b"accept-encoding"]
    return {**scope, "headers": headers}


class _Download:
    """Passes a file on as something to keep: where a browser shows it nevertheless, nothing in it may act."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = _without(message["headers"], b"content-disposition")
            message = {
                **message,
                "headers": [
                    *headers,
                    (b"content-disposition", b"attachment"),
                    (b"content-security-policy", _INERT.encode()),
                    *_PLAIN,
                ],
            }
        await self._send(message)


class _Page:
    """Passes an answer on, with the policy; an HTML page is collected, cleaned and completed."""

    def __init__(self, send: Send, head: str) -> None:
        self._send = send
        self._head = head
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*_without(message["headers"]), (b"content-security-policy", POLICY.encode()), *_PLAIN]
            message = {**message, "headers": headers}
            if any(key.lower() == b"content-type" and value.startswith(b"text/html") for key, value in headers):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            await self._finish()
            return
        await self._send(message)

    async def _finish(self) -> None:
        assert self._start is not None
        page = _FOREIGN.sub("", self._body.decode("utf-8", "replace"))
        body = page.replace("</head>", f"{self._head}</head>", 1).encode()
        headers = [(key, value) for key, value in self._start["headers"] if key.lower() != b"content-length"]
        await self._send({**self._start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


_PLAIN = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


def _without(headers: Iterable[tuple[bytes, bytes]], *names: bytes) -> list[tuple[bytes, bytes]]:
    """Headers but for those of the names, and those that let other web sites in."""
    return [item for item in headers if not item[0].lower().startswith((b"access-control-", *names))]


async def _refuse(scope: Scope, receive: Receive, send: Send, code: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
