"""Pictures as HTML: their pixels lie in it, so that no file is served."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from crate_interp.explorer.pictures import Picture
from crate_interp.files import escaped

__all__ = ["data_uri", "image_html", "picture_html"]

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
    image = f'<img alt="{escaped(words)}" src="{data_uri(rgb)}">'
    if hw is None:
        return image
    keys = ' tabindex="0" role="application" aria-label="' if focus else ""
    keys += escaped(f"{words}: click, or press the arrow keys, to choose a patch") if focus else ""
    keys += '"' if focus else ""
    return f'<span class="pick" data-h="{hw[0]}" data-w="{hw[1]}"{keys}>{image}</span>'
