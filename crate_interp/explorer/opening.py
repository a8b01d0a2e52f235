"""What a browser shows first: the picture, while torch and the models are still loaded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from importlib.resources import files
from threading import Event
from typing import Any

from crate_interp.errors import InputError
from crate_interp.explorer.framework import gr
from crate_interp.explorer.picture_markup import picture_html
from crate_interp.explorer.pictures import Pictures

__all__ = ["ONE_AT_A_TIME", "Draw", "build_opening", "style"]

TITLE = "crate-interp explore"
ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_id": "look",
    "concurrency_limit": 1,
    "show_progress": "hidden",
}
Draw = Callable[[gr.Request], None]
_LOADING = '<p class="words" role="status">Loading the models ...</p>'


def build_opening(pictures: Pictures, drawn: Future[Draw], shown: Event) -> Any:
    """Build a page that shows its picture at once, and draws the rest when that is there.

    Args:
        pictures: The pictures.
        drawn: Draws the rest into the page, for a request; may come later.
        shown: Is set when a picture was shown.
    """

    def opened(request: gr.Request) -> str:
        key = dict(request.query_params).get("picture", pictures.first)
        try:
            return picture_html(pictures.get(key)) + _LOADING
        except InputError:  # the page says what is wrong with the link as soon as it is drawn
            return _LOADING
        finally:
            shown.set()

    def draw(request: gr.Request) -> None:
        drawn.result()(request)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="title")
        opening = gr.HTML("", elem_classes="opening")
        page.load(opened, outputs=opening, api_visibility="private", show_progress="hidden")
        gr.render(**ONE_AT_A_TIME)(draw)
    return page


def style() -> dict[str, Any]:
    """Give the look of the page, for `launch`; nothing of it is loaded from elsewhere."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="stone", font=fonts, font_mono=mono, spacing_size="sm"
    )
    theme.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )
    css = files("crate_interp.explorer").joinpath("page.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": css}
