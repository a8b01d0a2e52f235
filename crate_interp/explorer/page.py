"""The page itself: controls at the left and above, answers at the right."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.explorer.controls import Control
from crate_interp.explorer.downloads import download
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.framework import gr
from crate_interp.explorer.markup import alert_html, answer_html, picture_html
from crate_interp.explorer.models import SIZES
from crate_interp.explorer.selection import NONE, OWN_SIZE, Selection, link_of, selection_of

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


@dataclass(eq=False)
class _Parts:
    """Components of the page; those of the controls by view, kind and name."""

    key: Any = None
    pictures: dict[str, Any] = field(default_factory=dict)
    picture: Any = None
    upload: Any = None
    patch: Any = None
    clear: Any = None
    models: dict[str, Any] = field(default_factory=dict)
    view: Any = None
    tabs: Any = None
    kinds: dict[str, Any] = field(default_factory=dict)
    groups: dict[tuple[str, str], Any] = field(default_factory=dict)
    controls: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    answer: Any = None
    link: Any = None
    file: Any = None

    def inputs(self) -> list[Any]:
        """All that says what the page shows, in the order in which `_Page.selection` takes it."""
        return [
            *(self.key, self.patch, self.view),
            *self.models.values(),
            *self.kinds.values(),
            *self.controls.values(),
        ]


def build_page(explorer: Explorer, most_bytes: int) -> Any:
    """Build the page of an explorer.

    Args:
        explorer: Its models, pictures and views.
        most_bytes: Largest file that may be uploaded.
    """
    parts, start = _Parts(), explorer.start
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        parts.key, parts.view = gr.State(start.picture), gr.State(start.view)
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="title")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=2, min_width=300):
                _draw_left(explorer, parts, start, most_bytes)
            with gr.Column(scale=5, min_width=300):
                _draw_right(explorer, parts, start)
        parts.link = gr.HTML("", visible="hidden", html_template="", js_on_load=_script("link"))
        parts.file = gr.HTML(None, visible="hidden", html_template="", js_on_load=_script("file"))
        _Page(explorer, parts).listen(page)
    return page


def _draw_left(explorer: Explorer, parts: _Parts, start: Selection, most_bytes: int) -> None:
    """Picture, patch and models."""
    sets = explorer.pictures.sets()
    upload = (
        '<label class="upload"><span>Upload a picture, or drop it here</span>'
        f'<input type="file" accept="image/*,.heic,.heif" data-most="{most_bytes}"></label>'
        '<output class="alert" role="alert"></output>'
    )
    parts.upload = gr.HTML(
        html_template=upload, js_on_load=_script("upload"), elem_classes="upload-place"
    )
    with gr.Row():
        parts.pictures["set"] = gr.Dropdown(sets, value=sets[0], label="pictures", min_width=110)
        names = _choices(explorer, sets[0])
        parts.pictures["key"] = gr.Dropdown(
            names, value=start.picture, label="picture", min_width=150, scale=2
        )
    parts.picture = gr.HTML("", js_on_load=_script("page"), elem_classes="picture")
    with gr.Row():
        parts.patch = gr.Textbox(
            label="patch", info="Y,X: a pixel of it; click the picture", min_width=150, scale=2
        )
        parts.clear = gr.Button("No patch", min_width=90, size="sm")
    models = explorer.models.names()
    with gr.Row():
        parts.models["model"] = gr.Dropdown(models, value=models[0], label="model", min_width=110)
        parts.models["beside"] = gr.Dropdown(
            [NONE, *models], value=NONE, label="beside it", min_width=110
        )
        parts.models["size"] = gr.Dropdown(
            [OWN_SIZE, *SIZES], value=OWN_SIZE, label="size of input", min_width=110
        )


def _draw_right(explorer: Explorer, parts: _Parts, start: Selection) -> None:
    """Views with their controls, and the answer."""
    with gr.Tabs(selected=start.view, overflow_behavior="wrap") as parts.tabs:
        for name, view in explorer.views.items():
            with gr.Tab(view.title, id=name):
                gr.HTML(f"<p>{view.summary}</p>", elem_classes="summary")
                kinds = list(view.kinds())
                if len(kinds) > 1:
                    parts.kinds[name] = gr.Dropdown(kinds, value=kinds[0], label="method")
                for kind in kinds:
                    _draw_controls(explorer, parts, name, kind, kind == kinds[0])
    parts.answer = gr.HTML("", js_on_load=_script("page"), elem_classes="answer-place")


def _draw_controls(explorer: Explorer, parts: _Parts, view: str, kind: str, visible: bool) -> None:
    with gr.Row(visible=visible, elem_classes="controls") as parts.groups[view, kind]:
        for control in explorer.controls[view, kind]:
            parts.controls[view, kind, control.name] = _component(control)


def _component(control: Control) -> Any:
    about: dict[str, Any] = {"label": control.label, "info": control.help, "min_width": 170}
    if control.kind == "switch":
        return gr.Checkbox(control.default, **about)
    if control.kind == "choice":
        return gr.Dropdown(list(control.choices), value=control.default, **about)
    if control.kind == "text":
        return gr.Textbox("" if control.default is None else str(control.default), **about)
    low, high, step = control.limits
    return gr.Slider(low, high, control.default, step=step, **about)


def _choices(explorer: Explorer, name: str) -> list[tuple[str, str]]:
    return [(key.partition("/")[2], key) for key in explorer.pictures.keys(name)]


def _script(name: str) -> str:
    return files("crate_interp.explorer").joinpath(f"{name}.js").read_text(encoding="utf-8")


@dataclass(eq=False)
class _Page:
    """What happens on the page."""

    explorer: Explorer
    parts: _Parts

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
            choices[:] = _choices(self.explorer, str(name))
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
        parts, explorer = self.parts, self.explorer
        try:
            selection = explorer.checked(select())
            picture = explorer.pictures.get(selection.picture)
            updates: Updates = {
                parts.key: selection.picture,
                parts.patch: selection.patch,
                parts.view: selection.view,
                parts.link: link_of(selection, explorer.defaults(selection)),
            }
            updates[parts.picture] = picture_html(picture)
            updates[parts.answer] = answer_html(explorer.look(selection))
        except InputError as error:
            return {**locals().get("updates", {}), parts.answer: alert_html(str(error))}
        except Exception:
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
            choices = _choices(explorer, name)
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
