"""Components of the page, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from crate_interp.explorer.controls import Control
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.framework import gr
from crate_interp.explorer.models import SIZES
from crate_interp.explorer.selection import NONE, OWN_SIZE, Selection

__all__ = ["Parts", "choices_of", "draw_left", "draw_right", "script"]


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


def draw_left(explorer: Explorer, parts: Parts, start: Selection, most_bytes: int) -> None:
    """Picture, patch and models."""
    sets = explorer.pictures.sets()
    upload = (
        '<label class="upload"><span>Upload a picture, or drop it here</span>'
        f'<input type="file" accept="image/*,.heic,.heif" data-most="{most_bytes}"></label>'
        '<output class="alert" role="alert"></output>'
    )
    parts.upload = gr.HTML(
        html_template=upload, js_on_load=script("upload"), elem_classes="upload-place"
    )
    with gr.Row():
        parts.pictures["set"] = gr.Dropdown(sets, value=sets[0], label="pictures", min_width=120)
        names = choices_of(explorer, sets[0])
        parts.pictures["key"] = gr.Dropdown(
            names, value=start.picture, label="picture", min_width=200, scale=2
        )
    parts.picture = gr.HTML("", js_on_load=script("page"), elem_classes="picture")
    with gr.Row():
        parts.patch = gr.Textbox(
            label="patch", info="Y,X: a pixel of it; click the picture", min_width=150, scale=2
        )
        parts.clear = gr.Button("Clear patch", min_width=90, size="sm", elem_classes="clear")
    models = explorer.models.names()
    with gr.Row():
        parts.models["model"] = gr.Dropdown(models, value=models[0], label="model", min_width=130)
        parts.models["beside"] = gr.Dropdown(
            [NONE, *models], value=NONE, label="beside it", min_width=130
        )
        parts.models["size"] = gr.Dropdown(
            [OWN_SIZE, *SIZES], value=OWN_SIZE, label="size of input", min_width=130
        )


def draw_right(explorer: Explorer, parts: Parts, start: Selection) -> None:
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
    parts.answer = gr.HTML("", js_on_load=script("page"), elem_classes="answer-place")


def _draw_controls(explorer: Explorer, parts: Parts, view: str, kind: str, visible: bool) -> None:
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
    return gr.Slider(low, high, control.default, step=step, **{**about, "min_width": 230})


def choices_of(explorer: Explorer, name: str) -> list[tuple[str, str]]:
    """Give the pictures of a set for a list: names and keys."""
    return [(key.partition("/")[2], key) for key in explorer.pictures.keys(name)]


def script(name: str) -> str:
    """Read a script of the page."""
    return files("crate_interp.explorer").joinpath(f"{name}.js").read_text(encoding="utf-8")
