"""Components of the page, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from crate_interp.explorer.controls import Control
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.framework import gr
from crate_interp.explorer.models import SIZES
from crate_interp.explorer.selection import NONE, OWN_SIZE, Selection

__all__ = ["Look", "Parts", "choices_of", "draw_left", "draw_right", "script"]

# Gradio guesses which components take input, and guesses wrong behind gr.render.
_USED: dict[str, Any] = {"interactive": True}


@dataclass(frozen=True)
class Look:
    """What the page shows.

    Attributes:
        selection: What was asked, as `Explorer.checked` gives it.
        picture: The picture, HTML.
        answer: Answers of the models, or what is wrong, HTML.
        link: The selection as the part of a link after `?`; empty for the link as it is.
    """

    selection: Selection
    picture: str
    answer: str
    link: str


@dataclass(eq=False)
class Parts:
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


def draw_left(explorer: Explorer, parts: Parts, look: Look, most_bytes: int) -> None:
    """Picture, patch and models."""
    sets, selection = explorer.pictures.sets(), look.selection
    own_set = selection.picture.partition("/")[0]
    shown_set = own_set if own_set in sets else sets[0]
    shown_picture = selection.picture if own_set in sets else None
    upload = (
        '<label class="upload"><span>Upload a picture, or drop it here</span>'
        f'<input type="file" accept="image/*,.heic,.heif" data-most="{most_bytes}"></label>'
        '<output class="alert" role="alert"></output>'
    )
    parts.upload = gr.HTML(
        html_template=upload, js_on_load=script("upload"), elem_classes="upload-place"
    )
    with gr.Row():
        parts.pictures["set"] = gr.Dropdown(
            sets, value=shown_set, label="pictures", min_width=120, **_USED
        )
        parts.pictures["key"] = gr.Dropdown(
            choices_of(explorer, shown_set),
            value=shown_picture,
            label="picture",
            min_width=200,
            scale=2,
            **_USED,
        )
    parts.picture = gr.HTML(look.picture, js_on_load=script("page"), elem_classes="picture")
    with gr.Row():
        parts.patch = gr.Textbox(
            selection.patch,
            label="patch",
            info="Y,X: a pixel of it; click the picture",
            min_width=150,
            scale=2,
            **_USED,
        )
        parts.clear = gr.Button("Clear patch", min_width=90, size="sm", elem_classes="clear")
    models = explorer.models.names()
    with gr.Row():
        parts.models["model"] = gr.Dropdown(
            models, value=selection.model, label="model", min_width=130, **_USED
        )
        parts.models["beside"] = gr.Dropdown(
            [NONE, *models],
            value=selection.beside,
            label="beside it",
            min_width=130,
            **_USED,
        )
        parts.models["size"] = gr.Dropdown(
            [OWN_SIZE, *SIZES],
            value=selection.size or OWN_SIZE,
            label="size of input",
            min_width=130,
            **_USED,
        )


def draw_right(explorer: Explorer, parts: Parts, look: Look) -> None:
    """Views with their controls, and the answer."""
    selection = look.selection
    with gr.Tabs(selected=selection.view, overflow_behavior="wrap") as parts.tabs:
        for name, view in explorer.views.items():
            with gr.Tab(view.title, id=name):
                gr.HTML(f"<p>{view.summary}</p>", elem_classes="summary")
                kinds = list(view.kinds())
                shown = selection.kind if name == selection.view else kinds[0]
                if len(kinds) > 1:
                    parts.kinds[name] = gr.Dropdown(kinds, value=shown, label="method", **_USED)
                for kind in kinds:
                    options = selection.options if (name, kind) == (selection.view, shown) else {}
                    _draw_controls(explorer, parts, (name, kind), kind == shown, options)
    parts.answer = gr.HTML(look.answer, js_on_load=script("page"), elem_classes="answer-place")


def _draw_controls(
    explorer: Explorer,
    parts: Parts,
    group: tuple[str, str],
    visible: bool,
    options: Mapping[str, Any],
) -> None:
    view, kind = group
    with gr.Row(visible=visible, elem_classes="controls") as parts.groups[group]:
        for control in explorer.controls[group]:
            value = options.get(control.name, control.default)
            parts.controls[view, kind, control.name] = _component(control, value)


def _component(control: Control, value: Any) -> Any:
    about: dict[str, Any] = {
        "label": control.label,
        "info": control.help,
        "min_width": 170,
        **_USED,
    }
    if control.kind == "switch":
        return gr.Checkbox(value, **about)
    if control.kind == "choice":
        return gr.Dropdown(list(control.choices), value=value, **about)
    if control.kind == "text":
        return gr.Textbox("" if value is None else str(value), **about)
    low, high, step = control.limits
    return gr.Slider(low, high, value, step=step, **{**about, "min_width": 230})


def choices_of(explorer: Explorer, name: str) -> list[tuple[str, str]]:
    """Give the pictures of a set for a list: names and keys."""
    return [(key.partition("/")[2], key) for key in explorer.pictures.keys(name)]


def script(name: str) -> str:
    """Read a script of the page."""
    return files("crate_interp.explorer").joinpath(f"{name}.js").read_text(encoding="utf-8")
