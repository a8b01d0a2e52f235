"""Pictures as HTML: their pixels lie in it, so that no file is served."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from jaxtyping import UInt8

from crate_interp.explorer.pictures import Picture
from crate_interp.files import escaped

__all__ = ["image_html", "picture_html"]

_QUALITY = 90  # of JPEG


def picture_html(picture: Picture) -> str:
    """Write the picture that is looked at."""
    name, (height, width) = picture.name, picture.hw
    image = image_html(f"picture {name}", picture.shown, picture.hw, focus=True)
    about = f"{escaped(name)}, {width} x {height} pixels"
    return f'<figure class="looked-at">{image}<figcaption>{about}</figcaption></figure>'


def image_html(
    words: str,
    rgb: UInt8[np.ndarray, "H W 3"],
    hw: tuple[int, int] | None,
    focus: bool = False,
) -> str:
    """Write an image.

    Args:
        words: What it shows.
        rgb: Its pixels.
        hw: Height and width of the picture that it covers, which clicks need; `None` for none.
        focus: Whether keys can choose a patch of it.
    """
    image = f'<img alt="{escaped(words)}" src="{_data_uri(rgb)}">'
    if hw is None:
        return image
    keys = ' tabindex="0" role="application" aria-label="' if focus else ""
    keys += escaped(f"{words}: click, or press the arrow keys, to choose a patch") if focus else ""
    keys += '"' if focus else ""
    return f'<span class="pick" data-h="{hw[0]}" data-w="{hw[1]}"{keys}>{image}</span>'


def _data_uri(rgb: UInt8[np.ndarray, "H W 3"]) -> str:
    """Write pixels as a URI that holds them."""
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    _, content = cv2.imencode(".jpeg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"
