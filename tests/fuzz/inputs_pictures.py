"""Pictures of every kind that is read, and the ways in which they come in."""

import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import open_images, read_image
from crate_interp.errors import InputError
from tests.fuzz.damage import damage
from tests.fuzz.damage_text import LISTS
from tests.fuzz.frame import Accepted, Damage

__all__ = ["MODEL", "make", "make_packed", "maskcut", "mutate_list", "read", "read_place"]

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


def make_packed(folder: Path) -> None:
    """Write the pictures, a list of them and a tar file with them and with names of all kinds."""
    make(folder)
    names = sorted(path.name for path in (folder / "images").iterdir())
    (folder / "list.txt").write_text("\n".join(f"images/{name}" for name in names))
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(folder / f"packed-{kind}.tar", "w", format=kind) as tar:
            for name in names[:6]:
                tar.add(folder / "images" / name, f"a/{name}")
            tar.add(folder / "images" / names[0], f"é{'n' * 150}.png")


def mutate_list(rng: random.Random, folder: Path) -> Damage:
    """Damage the list, without lines that name files elsewhere, as a user's list may."""
    damaged = damage(["list.txt"], LISTS, names=["images/", "/etc/"])(rng, folder)
    path = folder / "list.txt"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(
        b"\n".join(line for line in lines if not any(sign in line for sign in (b"others", b"://")))
    )
    return damaged


def read_place(pattern: str) -> Callable[[Path], None]:
    """Make a reader of all pictures of one or more places, which are told apart by a pattern."""

    def read_all(folder: Path) -> None:
        refused = []
        for place in sorted(folder.glob(pattern)):
            for record in open_images([place.relative_to(folder)]).records:
                try:
                    record.read()
                except InputError as error:
                    refused.append(error)
        if refused:
            raise refused[0]

    return read_all


def maskcut(folder: Path) -> int:
    """Cut the folder; a picture that cannot be read is told of, the others are cut."""
    command = ["maskcut", *MODEL, "--images", "images", "--output", "run", "--visualize", "1"]
    return main(command)
