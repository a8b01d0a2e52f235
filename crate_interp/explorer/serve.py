"""Serves the page of an explorer, on this machine unless told otherwise."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from typing import Any

from starlette.middleware import Middleware

from crate_interp.errors import InputError
from crate_interp.explorer.gate import Gate
from crate_interp.explorer.opening import Draw, build_opening, style
from crate_interp.explorer.pictures import Pictures

__all__ = ["LOOPBACK", "launch"]

_logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WAITING = 64  # events, at most
_SESSIONS = 256  # pages whose choices are remembered
_ASKED = 0.3  # seconds in which a browser that waits for the address asks for the page
_SHOWN = 2.0  # seconds in which it has its picture, at most
_BASE64 = 4 / 3
_BESIDES = 1_000_000  # bytes of a request beside the picture in it


def launch(
    pictures: Pictures,
    load: Callable[[], Draw],
    host: str,
    port: int | None,
    most_bytes: int,
    tell: Callable[[str], None],
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        pictures: The pictures, of which the page shows one while the rest is loaded.
        load: Loads all else, and gives what draws it.
        host: Address to listen at.
        port: Port; `None` for the first free one from 7860.
        most_bytes: Largest file that may be uploaded.
        tell: Is told the address of the page as soon as it can be opened.

    Raises:
        InputError: The port is taken, the address is not of this machine, or what `load` raises.
    """
    if host not in LOOPBACK:
        _logger.warning("%s: others in the network can see the pictures and use the models", host)
    drawn: Future[Draw] = Future()
    asked, shown = Event(), Event()
    page = build_opening(pictures, drawn, shown)
    page.queue(max_size=_WAITING, default_concurrency_limit=1)
    gate: Any = Middleware(Gate, most_bytes=int(most_bytes * _BASE64) + _BESIDES, asked=asked)
    with tempfile.TemporaryDirectory(prefix="explore-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                app_kwargs={"middleware": [gate]},
                max_file_size=most_bytes,
                state_session_capacity=_SESSIONS,
                **_QUIET,
                **style(),
            )
        except OSError as error:
            raise InputError(f"port: cannot listen at {host}: {error}") from error
        tell(str(address))
        try:
            if asked.wait(_ASKED):  # importing beside it would hold up what the browser loads
                shown.wait(_SHOWN)
            drawn.set_result(load())
            Event().wait()
        finally:
            drawn.cancel()  # so that no page waits for what does not come
            page.close()


_QUIET: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "show_error": False,
    "footer_links": [],
    "ssr_mode": False,
    "enable_monitoring": False,
    "pwa": False,
    "mcp_server": False,
}
