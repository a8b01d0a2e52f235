"""The page itself: controls at the left and above, answers at the right."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.explorer.downloads import download
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.framework import gr
from crate_interp.explorer.layout import Look, Parts, choices_of, draw_left, draw_right, script
from crate_interp.explorer.markup import alert_html, answer_html
from crate_interp.explorer.opening import ONE_AT_A_TIME
from crate_interp.explorer.picture_markup import picture_html
from crate_interp.explorer.selection import OWN_SIZE, Selection, link_of, selection_of

__all__ = ["draw_page"]

_logger = logging.getLogger(__name__)

_LISTENING = {**ONE_AT_A_TIME, "api_visibility": "private"}
Updates = dict[Any, Any]  # of components of gradio, which is generous with types


def draw_page(explorer: Explorer, most_bytes: int, request: gr.Request) -> None:
    """Draw the page of an explorer into an open one of gradio.

    Args:
        explorer: Its models, pictures and views.
        most_bytes: Largest file that may be uploaded.
        request: Request of the browser, whose link says what is shown.
    """
    page = _Page(explorer)
    look, parts = page.opened(request), page.parts
    parts.key, parts.view = gr.State(look.selection.picture), gr.State(look.selection.view)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=2, min_width=300):
            draw_left(explorer, parts, look, most_bytes)
        with gr.Column(scale=5, min_width=300):
            draw_right(explorer, parts, look)
    parts.link = gr.HTML(look.link, visible="hidden", html_template="", js_on_load=script("link"))
    parts.file = gr.HTML(None, visible="hidden", html_template="", js_on_load=script("file"))
    page.listen()


@dataclass(eq=False)
class _Page:
    """What happens on the page."""

    explorer: Explorer
    parts: Parts = field(default_factory=Parts)

    def listen(self) -> None:
        """Bind the events."""
        parts, inputs = self.parts, self.parts.inputs()
        outputs = [parts.answer, parts.link, parts.picture, parts.key, parts.patch, parts.view]

        def on(event: Callable[..., Any], change: Callable[..., Any]) -> None:
            event(
                partial(self.changed, change),
                inputs,
                outputs,
                trigger_mode="always_last",
                **_LISTENING,
            )

        for own in (*parts.models.values(), *parts.controls.values()):
            on(own.submit if isinstance(own, gr.Textbox) else own.input, _same)
        on(parts.patch.submit, _same)
        on(parts.patch.blur, _same)
        on(parts.clear.click, _without_patch)
        parts.link.view(self.view_chosen, inputs, outputs, **_LISTENING)
        parts.picture.pick(self.picked, inputs, outputs, **_LISTENING)
        parts.answer.pick(self.picked, inputs, outputs, **_LISTENING)
        parts.answer.save(
            self.saved, [parts.file, *inputs], [parts.file, parts.answer], **_LISTENING
        )
        parts.upload.upload(self.uploaded, inputs, outputs, **_LISTENING)
        key = parts.pictures["key"]
        key.input(self.chosen, [key, *inputs], outputs, **_LISTENING)
        parts.pictures["set"].input(
            self.set_chosen, [parts.pictures["set"], *inputs], [*outputs, key], **_LISTENING
        )
        for name, kinds in parts.kinds.items():
            groups = [group for (view, _), group in parts.groups.items() if view == name]
            kinds.input(partial(self.kind_chosen, name), inputs, [*outputs, *groups], **_LISTENING)

    def view_chosen(self, event: gr.EventData, *values: Any) -> Updates:
        """Show another view."""

        def select() -> Selection:
            titles = {view.title: name for name, view in self.explorer.views.items()}
            title = _text(event, "title")
            if title not in titles:
                raise InputError(f"view: expected one of {', '.join(titles)}")
            return self.selection(values, titles[title])

        return self.shown(select)

    def selection(self, values: Sequence[Any], chosen: str | None = None) -> Selection:
        """Read what the page shows from the values of its inputs.

        Args:
            values: The values.
            chosen: View, if it is another one than before.
        """
        given = dict(zip(map(id, self.parts.inputs()), values, strict=True))

        def of(component: Any) -> Any:
            return given[id(component)]

        parts = self.parts
        view = chosen or str(of(parts.view))
        kind = str(of(parts.kinds[view])) if view in parts.kinds else ""
        size = of(parts.models["size"])
        options = {
            name: of(component)
            for (own_view, own_kind, name), component in parts.controls.items()
            if (own_view, own_kind) == (view, kind)
        }
        return Selection(
            str(of(parts.key)),
            str(of(parts.models["model"])),
            view,
            kind,
            str(of(parts.models["beside"])),
            None if size == OWN_SIZE else size,
            str(of(parts.patch) or "").strip(),
            options,
        )

    def changed(self, change: Callable[[Selection], Selection], *values: Any) -> Updates:
        """Show what the controls say, after a change."""
        return self.shown(lambda: change(self.selection(values)))

    def picked(self, event: gr.EventData, *values: Any) -> Updates:
        """Choose the patch that was clicked."""

        def select() -> Selection:
            y, x = (_pixel(event, name) for name in ("y", "x"))
            return replace(self.selection(values), patch=f"{y},{x}")

        return self.shown(select)

    def uploaded(self, event: gr.EventData, *values: Any) -> Updates:
        """Show an uploaded picture."""

        def select() -> Selection:
            content, name = (_text(event, part) for part in ("content", "name"))
            try:
                decoded = base64.b64decode(content, validate=True)
            except binascii.Error:
                raise InputError("upload: expected a file in base64") from None
            picture = self.explorer.pictures.add(decoded, name)
            return _with_picture(picture.key, self.selection(values))

        return self.shown(select)

    def saved(self, event: gr.EventData, last: Any, *values: Any) -> Updates:
        """Hand over a file of an answer."""
        explorer = self.explorer
        try:
            selection = explorer.checked(self.selection(values))
            what, model = _text(event, "what"), _text(event, "model")
            for scene, answer in explorer.look(selection):
                if scene.model.name == model:
                    name, content = download(what, scene, answer)
                    uri = (
                        f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
                    )
                    number = last.get("number", 0) if isinstance(last, dict) else 0
                    return {self.parts.file: {"name": name, "uri": uri, "number": number + 1}}
        except InputError as error:
            return {self.parts.answer: alert_html(str(error))}
        return {self.parts.file: None}

    def chosen(self, key: Any, *values: Any) -> Updates:
        """Show another picture."""
        return self.shown(lambda: _with_picture(str(key), self.selection(values)))

    def set_chosen(self, name: Any, *values: Any) -> Updates:
        """Offer the pictures of another set, and show its first one."""
        choices: list[tuple[str, str]] = []

        def select() -> Selection:
            choices[:] = choices_of(self.explorer, str(name))
            return _with_picture(choices[0][1], self.selection(values))

        updates = self.shown(select)
        if choices:
            key = self.parts.pictures["key"]
            updates[key] = gr.update(choices=choices, value=choices[0][1])
        return updates

    def kind_chosen(self, view: str, *values: Any) -> Updates:
        """Show the controls of another kind of a view."""
        updates = self.shown(lambda: self.selection(values))
        selection = self.selection(values)
        return updates | self._visible(view, selection.kind)

    def opened(self, request: gr.Request) -> Look:
        """Look as the link says; if it is wrong, say so, and show what a page does at first.

        Args:
            request: Request of the browser.
        """
        start = self.explorer.start
        query = {str(name): str(value) for name, value in dict(request.query_params).items()}
        try:
            return self.looked(selection_of(query, start))
        except InputError as error:
            return replace(self.looked(start), answer=alert_html(str(error)), link="")

    def shown(self, select: Callable[[], Selection]) -> Updates:
        """Look, and give what the page shows then; what is wrong takes the place of the answer.

        Args:
            select: Gives what is to be shown.
        """
        parts = self.parts
        try:
            look = self.looked(select())
        except InputError as error:
            return {parts.answer: alert_html(str(error))}
        return {
            parts.key: look.selection.picture,
            parts.patch: look.selection.patch,
            parts.view: look.selection.view,
            parts.link: look.link,
            parts.picture: look.picture,
            parts.answer: look.answer,
        }

    def looked(self, selection: Selection) -> Look:
        """Look; what the view refuses takes the place of its answer.

        Raises:
            InputError: There is no such picture, model or option.
        """
        explorer = self.explorer
        selection = explorer.checked(selection)
        picture = picture_html(explorer.pictures.get(selection.picture))
        try:
            answer = answer_html(explorer.look(selection))
        except InputError as error:
            answer = alert_html(str(error))
        except Exception:  # views of packages raise what they like; the page goes on
            _logger.exception("the page asked for something that failed")
            answer = alert_html("this is a bug; the log of the server has it")
        link = link_of(selection, explorer.defaults(selection))
        return Look(selection, picture, answer, link)

    def _visible(self, view: str, kind: str) -> Updates:
        return {
            group: gr.update(visible=own_kind == kind)
            for (own_view, own_kind), group in self.parts.groups.items()
            if own_view == view
        }


def _same(selection: Selection) -> Selection:
    return selection


def _without_patch(selection: Selection) -> Selection:
    return replace(selection, patch="")


def _with_picture(key: str, selection: Selection) -> Selection:
    return replace(selection, picture=key, patch="")


def _text(event: gr.EventData, name: str) -> str:
    value = event._data.get(name) if isinstance(event._data, dict) else None
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a text, found {shorten(value)}")
    return value


def _pixel(event: gr.EventData, name: str) -> int:
    value = event._data.get(name) if isinstance(event._data, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1_000_000:
        raise InputError(f"{name}: expected a pixel, found {shorten(value)}")
    return value
