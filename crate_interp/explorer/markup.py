"""Answers as HTML."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from crate_interp.explorer.downloads import DOWNLOADS, offered
from crate_interp.explorer.picture_markup import image_html
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown
from crate_interp.files import escaped

__all__ = ["alert_html", "answer_html", "command_line"]


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
    images = image_html(shown.words, shown.rgb, hw)
    if shown.below is not None:
        images += image_html(f"{shown.words}: mask", shown.below, hw)
    return f"<figure>{images}<figcaption>{escaped(shown.words)}</figcaption></figure>"
