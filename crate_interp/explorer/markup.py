"""Answers as HTML: pictures lie in it, so that no file is served."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from crate_interp.data import shrunk
from crate_interp.explorer.downloads import DOWNLOADS, offered
from crate_interp.explorer.pictures import Picture
from crate_interp.explorer.scene import SHOWN_SIDE, Scene
from crate_interp.explorer.view import Answer, Shown
from crate_interp.visualization.markup import escaped

__all__ = ["alert_html", "answer_html", "command_line", "data_uri", "picture_html"]

_QUALITY = 90  # of JPEG


def data_uri(pixels: Shaped[np.ndarray, "H W *c"], kind: str = "jpeg") -> str:
    """Write pixels as a URI that holds them.

    Args:
        pixels: RGB, or grey, in [0, 255].
        kind: `jpeg` or `png`.
    """
    bgr = pixels[:, :, ::-1] if pixels.ndim == 3 else pixels
    settings = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == "jpeg" else []
    _, content = cv2.imencode(f".{kind}", np.ascontiguousarray(bgr), settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def picture_html(picture: Picture) -> str:
    """Write the picture that is looked at."""
    name, (height, width) = picture.name, picture.hw
    image = _image(f"picture {name}", shrunk(picture.rgb, SHOWN_SIDE), picture.hw, focus=True)
    about = f"{escaped(name)}, {width} x {height} pixels"
    return f'<figure class="looked-at">{image}<figcaption>{about}</figcaption></figure>'


def answer_html(answers: Sequence[tuple[Scene, Answer]]) -> str:
    """Write the answers of the models, side by side where there is room."""
    columns = "".join(_answer(scene, answer, len(answers) > 1) for scene, answer in answers)
    scene = answers[0][0]
    box = ""
    if scene.patch is not None:
        height, width = scene.picture.hw
        x1, y1, x2, y2 = scene.geometry.patch_box(*scene.patch)
        shares = (x1 / width, y1 / height, x2 / width, y2 / height)
        box = ",".join(f"{share:.5f}" for share in shares)
    return f'<div class="answers" data-box="{box}" aria-live="polite">{columns}</div>'


def alert_html(message: str) -> str:
    """Write what is wrong, in place of an answer."""
    alert = f'<p class="alert" role="alert">{escaped(message)}</p>'
    return f'<div class="answers" data-box="">{alert}</div>'


def command_line(answer: Answer) -> str:
    """Write the command that makes the same, to be typed in the folder of the picture."""
    return shlex.join(["crate-interp", *answer.command])


def _answer(scene: Scene, answer: Answer, with_name: bool) -> str:
    heading = f"<h2>{escaped(scene.model.name)}</h2>" if with_name else ""
    shown = "".join(_figure(scene, own) for own in answer.pictures)
    parts = "".join(part.html() for part in answer.parts)
    command = ""
    if answer.command:
        line = escaped(command_line(answer))
        note = f"<p>{escaped(answer.note)}</p>" if answer.note else ""
        command = (
            f'<details class="command"><summary>The same by a command</summary>{note}'
            f'<pre tabindex="0"><code>{line}</code></pre></details>'
        )
    grid = f'<div class="shown">{shown}</div>' if shown else ""
    saves = "".join(
        f'<button type="button" class="save" data-what="{what}" '
        f'data-model="{escaped(scene.model.name)}">{DOWNLOADS[what]}</button>'
        for what in offered(answer)
    )
    command += f'<p class="saves"><span>Save:</span> {saves}</p>' if saves else ""
    return (
        f'<article class="answer">{heading}<p class="words">{escaped(answer.text)}</p>{grid}{parts}'
        f"{command}</article>"
    )


def _figure(scene: Scene, shown: Shown) -> str:
    hw = scene.picture.hw if shown.covers else None
    images = _image(shown.words, shown.rgb, hw)
    if shown.below is not None:
        images += _image(f"{shown.words}: mask", shown.below, hw)
    return f"<figure>{images}<figcaption>{escaped(shown.words)}</figcaption></figure>"


def _image(
    words: str,
    rgb: UInt8[np.ndarray, "H W 3"],
    hw: tuple[int, int] | None,
    focus: bool = False,
) -> str:
    """Write an image; one that covers the picture knows its height and width, for clicks."""
    image = f'<img alt="{escaped(words)}" src="{data_uri(rgb)}">'
    if hw is None:
        return image
    keys = ' tabindex="0" role="application" aria-label="' if focus else ""
    keys += escaped(f"{words}: click, or press the arrow keys, to choose a patch") if focus else ""
    keys += '"' if focus else ""
    return f'<span class="pick" data-h="{hw[0]}" data-w="{hw[1]}"{keys}>{image}</span>'
