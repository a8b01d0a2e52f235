"""What comes through to the page's server: its own pages, and requests of a bounded size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from threading import Event
from typing import Any

from crate_interp.errors import shorten

__all__ = ["Gate"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
_FOLDERS = ("/assets/", "/static/", "/svelte/")
_API = "/gradio_api"
_CALLS = (
    *("/queue/join", "/queue/data", "/app_id", "/startup-events", "/theme.css", "/info"),
    *("/heartbeat/", "/cancel", "/reset"),
)
# The page embeds its pictures; whatever else it would load comes from here.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data:; object-src 'none'; base-uri 'self'"
)


class Gate:
    """Lets through what the page asks for; uploads and files by path are not among it.

    Args:
        app: The server's application.
        most_bytes: Largest body of a request.
        asked: Is set when a browser asks for the page.
    """

    def __init__(self, app: Application, most_bytes: int, asked: Event) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.asked = asked

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not _is_known(scope["path"]):
            await _refuse(send, 404, f"{shorten(scope['path'])}: there is no such page")
            return
        too_much = f"a request of more than {self.most_bytes / 1e6:.0f} MB is not taken"
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.most_bytes:
            await _refuse(send, 413, too_much)
            return
        if (scope["method"], scope["path"]) == ("GET", "/"):
            self.asked.set()
        body = await _read(receive, self.most_bytes)
        if body is None:
            await _refuse(send, 413, too_much)
            return
        await self.app(scope, _replayed(body, receive), _with_policy(send))


def _is_known(path: str) -> bool:
    if path in _PAGES or path.startswith(_FOLDERS):
        return ".." not in path
    call = path.removeprefix(_API)
    return path.startswith(_API) and call.startswith(_CALLS)


async def _read(receive: Receive, most: int) -> bytes | None:
    """Read a body; `None` for one that is longer than it said, or than is taken."""
    parts, count, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        count += len(parts[-1])
        more = message.get("more_body", False)
        if count > most:
            return None
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read, and then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


def _with_policy(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = [(b"content-security-policy", _POLICY.encode())]
            plain = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
            message["headers"] = [*message.get("headers", []), *policy, *plain]
        await send(message)

    return sent


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": message.encode()})
