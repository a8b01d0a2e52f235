"""Formats that are opened, bounds before decoding, and no other program at work."""

import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

from crate_interp.data import image_files, images
from crate_interp.data.image_files import (
    MAX_PIXELS,
    ImageReadError,
    image_formats,
    only_image_formats,
    opened_image,
)
from crate_interp.data.images import read_image
from crate_interp.data.label_maps import MAX_LABELS, read_label_map

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
FORBIDDEN = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "socket.connect")
seen: list[str] = []


def _watch(event, _):
    if event in FORBIDDEN:
        seen.append(event)


@pytest.fixture(scope="module")
def watched():
    """What was started or connected to; an audit hook stays until the process ends."""
    sys.addaudithook(_watch)
    return seen


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A picture whose header promises what its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    idat = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["eps", "png", "jpg"])
def test_eps_is_refused_and_starts_nothing(tmp_path, watched, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(EPS)
    watched.clear()
    with pytest.raises(
        ImageReadError, match=r"a\.\w+: cannot be read: not an image, or of unknown"
    ):
        read_image(path)
    with pytest.raises(ImageReadError, match="cannot be read: not an image"):
        read_label_map(path, 21)
    with pytest.raises(ImageReadError, match=r"^cannot be read: not an image"):
        with opened_image(io.BytesIO(EPS), ""):
            pass
    with only_image_formats(), pytest.raises(OSError, match="cannot identify"):
        Image.open(path)
    assert watched == []


def test_other_formats_come_back_after_other_libraries(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tga")
    with only_image_formats(), pytest.raises(OSError, match="cannot identify"):
        Image.open(tmp_path / "a.tga")
    with Image.open(tmp_path / "a.tga") as image:
        assert image.format == "TGA"


@pytest.mark.parametrize("size", [(8193, 8192), (30_000, 30_000), (2**31 - 1, 2)])
def test_a_huge_size_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(*size))
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(ImageReadError, match=r"huge\.png: cannot be read: .*pixels"):
        read_image(path)
    with pytest.raises(ImageReadError, match=r"huge\.png: cannot be read: .*pixels"):
        read_label_map(path, 21)


def test_a_label_map_has_a_bound_of_its_own(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(png_header(4097, 4096))
    assert MAX_LABELS < 4097 * 4096
    with pytest.raises(
        ImageReadError, match=r"map\.png: .*4097 x 4096 pixels are more than the limit"
    ):
        read_label_map(path, 21)


@pytest.mark.parametrize(("bits", "colour", "mode"), [(16, 0, "I;16"), (1, 0, "1"), (8, 4, "LA")])
def test_label_maps_of_other_modes_are_refused_before_they_are_decoded(
    tmp_path, bits, colour, mode
):
    path = tmp_path / "map.png"
    path.write_bytes(png_header(4, 4, bits, colour))
    with pytest.raises(ImageReadError, match=rf"map\.png: expected labels, .* found mode {mode}"):
        read_label_map(path, 21)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "CMYK", "RGBA", "1"])
def test_strips_make_no_difference(monkeypatch, mode):
    values = np.random.default_rng(0).integers(0, 256, (37, 11, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[:, :, 0].astype(np.uint16) * 251)
    else:
        image = Image.fromarray(values[:, :, :3]).convert("RGB" if mode == "RGBA" else mode)
    whole = images.to_rgb(image)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 50)
    assert np.array_equal(images.to_rgb(image), whole)


@pytest.mark.parametrize("suffix", ["ppm", "pgm", "jp2", "avif"])
def test_more_formats_are_read(tmp_path, suffix):
    if suffix == "avif" and "AVIF" not in image_formats():
        pytest.skip("this Pillow has no AVIF")
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    rgb = np.full((8, 12, 3), 90, np.uint8)
    image = Image.fromarray(rgb)
    (image.convert("L") if suffix == "pgm" else image).save(tmp_path / f"a.{suffix}")
    assert np.abs(read_image(tmp_path / f"a.{suffix}").astype(int) - rgb).max() <= 3


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    assert "HEIF" in image_formats()
    rgb = np.full((64, 80, 3), 90, np.uint8)
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(tmp_path / "a.heic")
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - rgb).max() <= 3


def test_heic_without_pillow_heif_names_what_to_install(tmp_path, monkeypatch):
    known = tuple(name for name in image_formats() if name != "HEIF")
    monkeypatch.setattr(image_files, "image_formats", lambda: known)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ImageReadError, match=r"a\.heic: .*\(install pillow-heif\)"):
        read_image(tmp_path / "a.heic")


def test_what_pillow_warns_of_is_logged_with_the_name(tmp_path, caplog):
    Image.new("RGB", (4, 4)).save(tmp_path / "odd.png")
    with opened_image(tmp_path / "odd.png"):
        warnings.warn("Corrupt EXIF data", stacklevel=1)
    assert caplog.messages == [f"{tmp_path / 'odd.png'}: Corrupt EXIF data"]
