"""The page itself: controls at the left and above, answers at the right."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.explorer.downloads import download
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.framework import gr
from crate_interp.explorer.layout import Parts, choices_of, draw_left, draw_right, script
from crate_interp.explorer.markup import alert_html, answer_html, picture_html
from crate_interp.explorer.selection import OWN_SIZE, Selection, link_of, selection_of

__all__ = ["build_page", "style"]

_logger = logging.getLogger(__name__)

TITLE = "crate-interp explore"
_ONE_AT_A_TIME: Mapping[str, Any] = {
    "concurrency_id": "look",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "hidden",
}
Updates = dict[Any, Any]  # of components of gradio, which is generous with types


def build_page(explorer: Explorer, most_bytes: int) -> Any:
    """Build the page of an explorer.

    Args:
        explorer: Its models, pictures and views.
        most_bytes: Largest file that may be uploaded.
    """
    parts, start = Parts(), explorer.start
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        parts.key, parts.view = gr.State(start.picture), gr.State(start.view)
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="title")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=2, min_width=300):
                draw_left(explorer, parts, start, most_bytes)
            with gr.Column(scale=5, min_width=300):
                draw_right(explorer, parts, start)
        parts.link = gr.HTML("", visible="hidden", html_template="", js_on_load=script("link"))
        parts.file = gr.HTML(None, visible="hidden", html_template="", js_on_load=script("file"))
        _Page(explorer, parts).listen(page)
    return page


@dataclass(eq=False)
class _Page:
    """What happens on the page."""

    explorer: Explorer
    parts: Parts

    def listen(self, page: gr.Blocks) -> None:
        """Bind the events."""
        parts, inputs = self.parts, self.parts.inputs()
        outputs = [parts.answer, parts.link, parts.picture, parts.key, parts.patch, parts.view]

        def on(event: Callable[..., Any], change: Callable[..., Any], *more: Any) -> None:
            event(
                partial(self.changed, change),
                inputs,
                [*outputs, *more],
                trigger_mode="always_last",
                **_ONE_AT_A_TIME,
            )

        page.load(self.opened, None, [*outputs, *self._restored()], **_ONE_AT_A_TIME)
        for own in (*parts.models.values(), *parts.controls.values()):
            on(own.submit if isinstance(own, gr.Textbox) else own.input, _same)
        on(parts.patch.submit, _same)
        on(parts.patch.blur, _same)
        on(parts.clear.click, _without_patch)
        parts.link.view(self.view_chosen, inputs, outputs, **_ONE_AT_A_TIME)
        parts.picture.pick(self.picked, inputs, outputs, **_ONE_AT_A_TIME)
        parts.answer.pick(self.picked, inputs, outputs, **_ONE_AT_A_TIME)
        parts.answer.save(
            self.saved, [parts.file, *inputs], [parts.file, parts.answer], **_ONE_AT_A_TIME
        )
        parts.upload.upload(self.uploaded, inputs, outputs, **_ONE_AT_A_TIME)
        key = parts.pictures["key"]
        key.input(self.chosen, [key, *inputs], outputs, **_ONE_AT_A_TIME)
        parts.pictures["set"].input(
            self.set_chosen, [parts.pictures["set"], *inputs], [*outputs, key], **_ONE_AT_A_TIME
        )
        for name, kinds in parts.kinds.items():
            groups = [group for (view, _), group in parts.groups.items() if view == name]
            kinds.input(
                partial(self.kind_chosen, name), inputs, [*outputs, *groups], **_ONE_AT_A_TIME
            )

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

    def opened(self, request: gr.Request) -> Updates:
        """Show what the link says."""
        parts, updates = self.parts, Updates()

        def select() -> Selection:
            query = {str(name): str(value) for name, value in dict(request.query_params).items()}
            selection = self.explorer.checked(selection_of(query, self.explorer.start))
            self.explorer.pictures.get(selection.picture)
            updates.update(self._restored_values(selection))
            return selection

        shown = self.shown(select)
        if not updates:  # the link is wrong: the page says so, and shows what it does at first
            return {**shown, parts.link: gr.update()}
        return {**updates, **shown}

    def shown(self, select: Callable[[], Selection]) -> Updates:
        """Look, and give what the page shows then; what is wrong takes the place of the answer.

        Args:
            select: Gives what is to be shown.
        """
        parts, explorer, updates = self.parts, self.explorer, Updates()
        try:
            selection = explorer.checked(select())
            picture = explorer.pictures.get(selection.picture)
            updates |= {
                parts.key: selection.picture,
                parts.patch: selection.patch,
                parts.view: selection.view,
                parts.link: link_of(selection, explorer.defaults(selection)),
                parts.picture: picture_html(picture),
            }
            updates[parts.answer] = answer_html(explorer.look(selection))
        except InputError as error:
            return {**updates, parts.answer: alert_html(str(error))}
        except Exception:  # views of packages raise what they like; the page goes on
            _logger.exception("the page asked for something that failed")
            return {parts.answer: alert_html("this is a bug; the log of the server has it")}
        return updates

    def _restored(self) -> list[Any]:
        """Components that a link may set, beside those that every answer sets."""
        parts = self.parts
        return [
            *(parts.tabs, *parts.pictures.values(), *parts.models.values()),
            *(*parts.kinds.values(), *parts.groups.values(), *parts.controls.values()),
        ]

    def _restored_values(self, selection: Selection) -> Updates:
        parts, explorer = self.parts, self.explorer
        updates: Updates = {
            parts.tabs: gr.update(selected=selection.view),
            parts.models["model"]: selection.model,
            parts.models["beside"]: selection.beside,
            parts.models["size"]: selection.size or OWN_SIZE,
        }
        name = selection.picture.partition("/")[0]
        if name in explorer.pictures.sets():
            updates[parts.pictures["set"]] = name
            choices = choices_of(explorer, name)
            updates[parts.pictures["key"]] = gr.update(choices=choices, value=selection.picture)
        if selection.view in parts.kinds:
            updates[parts.kinds[selection.view]] = selection.kind
            updates |= self._visible(selection.view, selection.kind)
        for control, value in selection.options.items():
            component = parts.controls[selection.view, selection.kind, control]
            updates[component] = "" if value is None else value
        return updates

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
