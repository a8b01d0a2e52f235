"""Pictures of every kind that is read, and the ways in which they come in."""

from pathlib import Path

import numpy as np
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import read_image
from tests.fuzz.frame import Accepted

__all__ = ["MODEL", "make", "maskcut", "read"]

MODEL = ["--model", "crate_alpha_demo", "--weights", "random", "--size", "16", "--workers", "0"]
MODEL += ["--model-args", '{"embed_dim": 24, "depth": 1, "num_heads": 3}', "--device", "cpu"]


def make(folder: Path) -> None:
    """Write a picture of each kind to `images/`."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 32, 3), np.uint8)
    noise[6:16, 8:20] = (200, 90, 10)
    picture, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    named = {
        "a.png": (picture, {}),
        "b.jpg": (picture, {"exif": exif}),
        "c.jpg": (picture, {"progressive": True, "quality": 60}),
        "d.webp": (picture, {}),
        "e.gif": (picture.convert("P"), {}),
        "f.bmp": (picture, {}),
        "g.tif": (picture, {"compression": "tiff_lzw"}),
        "h.tiff": (Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), {}),
        "i.png": (Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), {"exif": exif}),
        "j.png": (picture.convert("P"), {"transparency": 3}),
        "k.jpg": (picture.convert("CMYK"), {}),
        "l.png": (picture.convert("LA"), {"dpi": (72, 72)}),
    }
    for name, (image, options) in named.items():
        image.save(folder / "images" / name, **options)


def read(folder: Path) -> None:
    """Read every picture that differs from the whole ones, and one that does not."""
    for path in sorted((folder / "images").iterdir()):
        rgb = read_image(path)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise Accepted(f"{path.name}: {rgb.dtype} of shape {rgb.shape}")


def maskcut(folder: Path) -> int:
    """Cut the folder; a picture that cannot be read is told of, the others are cut."""
    command = ["maskcut", *MODEL, "--images", "images", "--output", "run", "--visualize", "1"]
    return main(command)
