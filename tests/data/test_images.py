"""Images of every mode against arithmetic; damaged files; preprocessing against torchvision."""

import io
import struct
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from crate_interp.data.image_files import ImageReadError
from crate_interp.data.images import (
    read_image,
    resize_image,
    to_rgb,
)
from crate_interp.data.places import list_images
from crate_interp.data.preprocessing import preprocess
from crate_interp.errors import InputError


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def _saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def test_read_image_keeps_rgb_pixels(tmp_path, rgb):
    path = _saved(Image.fromarray(rgb), tmp_path / "a.png")
    assert np.array_equal(read_image(path), rgb)
    assert np.array_equal(read_image(str(path)), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_applies_exif_rotation(tmp_path, rgb, orientation):
    # The stored pixels are the upright ones, moved the way that the orientation undoes.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](rgb)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _saved(Image.fromarray(rgb), tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path), upright)


def test_read_image_reads_damaged_exif_without_rotation(tmp_path, rgb, caplog):
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path, exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(read_image(path), rgb)
    assert "a.png: its EXIF data is damaged" in caplog.text


def test_to_rgb_repeats_greyscale(tmp_path, rgb):
    grey = rgb[..., 0]
    expected = np.stack([grey] * 3, axis=2)
    assert np.array_equal(read_image(_saved(Image.fromarray(grey), tmp_path / "a.png")), expected)
    with_alpha = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(rgb[..., 1])])
    assert np.array_equal(read_image(_saved(with_alpha, tmp_path / "la.png")), expected)


def test_to_rgb_reads_one_bit(tmp_path, rgb):
    bits = rgb[..., 0] > 127
    found = read_image(_saved(Image.fromarray(bits), tmp_path / "a.png"))
    assert np.array_equal(found, np.where(bits, 255, 0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("transparency", [None, 2, bytes([0, 128, 255, 7])])
def test_to_rgb_looks_palette_colours_up(tmp_path, rgb, transparency):
    colours = np.random.default_rng(1).integers(0, 256, (4, 3), dtype=np.uint8)
    indices = rgb[..., 0] % 4
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())  # turns L into P
    options = {} if transparency is None else {"transparency": transparency}
    path = _saved(image, tmp_path / "a.png", **options)
    with Image.open(path) as reopened:
        assert reopened.mode == "P"
        assert ("transparency" in reopened.info) == (transparency is not None)
    assert np.array_equal(read_image(path), colours[indices])


def test_to_rgb_looks_palette_colours_with_alpha_up(rgb):
    image = Image.fromarray(rgb).quantize(4).convert("PA")
    assert image.mode == "PA"
    expected = np.asarray(image.convert("RGBA"))[..., :3]
    assert np.array_equal(to_rgb(image), expected)


def test_to_rgb_drops_alpha(tmp_path, rgb):
    rgba = np.dstack([rgb, rgb[..., 0]])
    path = _saved(Image.fromarray(rgba), tmp_path / "a.png")
    assert np.array_equal(read_image(path), rgb)
    assert np.array_equal(to_rgb(rgba), rgb)


def test_to_rgb_reads_cmyk(tmp_path, rgb):
    cmyk = np.dstack([255 - rgb, np.zeros_like(rgb[..., :1])])
    image = Image.frombytes("CMYK", (rgb.shape[1], rgb.shape[0]), cmyk.tobytes())
    assert np.array_equal(read_image(_saved(image, tmp_path / "a.tif")), rgb)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_to_rgb_scales_sixteen_bits(tmp_path, suffix):
    values = np.array([[0, 255, 256, 0x7FFF], [0x8000, 0xFEFF, 0xFF00, 0xFFFF]], dtype=np.uint16)
    expected = np.array([[0, 0, 1, 127], [128, 254, 255, 255]])
    found = read_image(_saved(Image.fromarray(values), tmp_path / f"a.{suffix}"))
    assert np.array_equal(found, expected[..., None].repeat(3, axis=2))
    big_endian = Image.frombytes("I;16B", (4, 2), values.astype(">u2").tobytes())
    assert np.array_equal(to_rgb(big_endian), found)
    integers = Image.fromarray(values.astype(np.int32))
    assert integers.mode == "I"
    assert np.array_equal(to_rgb(integers), found)


def test_to_rgb_scales_sixteen_bit_colour_alike(tmp_path):
    values = np.random.default_rng(2).integers(0, 1 << 16, (3, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 5, 3, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    assert np.array_equal(read_image(path), values >> 8)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((2, 3), np.float32), "floating point"),
        (np.full((2, 3), 1 << 16, np.int32), "65536"),
        (np.full((2, 3), -1, np.int32), "-1"),
    ],
)
def test_to_rgb_refuses_values_without_eight_bit_meaning(tmp_path, values, reason):
    image = Image.fromarray(values)
    with pytest.raises(InputError, match=reason):
        to_rgb(image)
    path = _saved(image, tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match=rf"a\.tif.*{reason}"):
        read_image(path)


def test_to_rgb_takes_arrays(rgb):
    grey = rgb[..., :1]
    assert np.array_equal(to_rgb(rgb), rgb)
    assert not np.shares_memory(to_rgb(rgb), rgb)
    assert np.array_equal(to_rgb(grey), grey.repeat(3, axis=2))
    assert np.array_equal(to_rgb(grey[..., 0]), grey.repeat(3, axis=2))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("RGB", (0, 4)),
    ],
)
def test_to_rgb_refuses_other_arrays(array):
    with pytest.raises(InputError, match="expected"):
        to_rgb(array)


def test_read_image_refuses_a_truncated_file(tmp_path, rgb):
    for suffix in ("jpg", "png"):
        buffer = io.BytesIO()
        Image.fromarray(rgb.repeat(40, 0).repeat(40, 1)).save(
            buffer, "jpeg" if suffix == "jpg" else suffix
        )
        path = tmp_path / f"cut.{suffix}"
        content = buffer.getvalue()
        path.write_bytes(content)
        assert read_image(path).shape == (240, 360, 3)
        for share in (0.05, 0.5, 0.9):
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(ImageReadError, match=rf"cut\.{suffix}: cannot be read"):
                read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"no image at all" * 10, "not an image"), (None, "No such file")],
)
def test_read_image_refuses_what_is_no_image(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"a\.jpg: cannot be read: .*{reason}"):
        read_image(path)


@pytest.mark.parametrize("error", [NotImplementedError("pixel format"), KeyError(3)])
def test_read_image_refuses_what_a_decoder_does_not_know(tmp_path, rgb, monkeypatch, error):
    path = _saved(Image.fromarray(rgb), tmp_path / "strange.png")
    monkeypatch.setattr(Image, "open", Mock(side_effect=error))
    with pytest.raises(ImageReadError, match=r"strange\.png: cannot be read: "):
        read_image(path)


def test_read_image_refuses_a_folder(tmp_path):
    with pytest.raises(ImageReadError, match="cannot be read"):
        read_image(tmp_path)


def test_read_image_refuses_a_decompression_bomb(tmp_path, rgb, monkeypatch):
    path = _saved(Image.fromarray(rgb), tmp_path / "bomb.png")
    for limit in (53, 30, 20):  # just below, over half, and below half of the 54 pixels
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageReadError, match=r"bomb\.png: cannot be read: .*54|9 x 6"):
            read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 54)
    assert read_image(path).shape == rgb.shape


def test_resize_image_equals_pillow(rgb):
    expected = Image.fromarray(rgb).resize((16, 24), Image.Resampling.LANCZOS)
    assert np.array_equal(resize_image(rgb, (24, 16)), np.asarray(expected))
    assert np.array_equal(resize_image(rgb, rgb.shape[:2]), rgb)
    for wrong, size in ((rgb[..., 0], (4, 4)), (rgb[:0], (4, 4)), (rgb, (0, 4))):
        with pytest.raises(InputError, match="expected"):
            resize_image(wrong, size)


def test_preprocess_equals_torchvision(rgb):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = preprocess(rgb, (24, 16), mean, std)
    resized = Image.fromarray(rgb).resize((16, 24), Image.Resampling.LANCZOS)
    expected = functional.normalize(functional.to_tensor(resized), mean, std)
    assert found.dtype == torch.float32
    assert found.shape == (3, 24, 16)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rgb": np.zeros((4, 4), np.uint8)},
        {"rgb": np.zeros((4, 4, 3), np.float32)},
        {"rgb": np.zeros((0, 4, 3), np.uint8)},
        {"input_hw": (0, 8)},
        {"mean": (0.5,)},
        {"std": (1.0, 1.0, 0.0)},
    ],
)
def test_preprocess_refuses_wrong_input(arguments):
    right = {
        "rgb": np.zeros((4, 4, 3), np.uint8),
        "input_hw": (8, 8),
        "mean": (0.5, 0.5, 0.5),
        "std": (1.0, 1.0, 1.0),
    }
    with pytest.raises(InputError, match="expected"):
        preprocess(**{**right, **arguments})


def test_list_images_lists_files_and_one_level_of_folders(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "looks_like.png").mkdir()
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", ".hidden.png", "deeper/d.png"):
        (folder / name).touch()
    file = tmp_path / "any.name"
    file.touch()
    found = list_images([file, folder, str(folder / "a.png")])
    assert found == [file, folder / "a.png", folder / "b.JPG", folder / "c.webp"]


def test_list_images_refuses_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match=r"missing\.png"):
        list_images([tmp_path / "missing.png"])
    with pytest.raises(InputError, match="found none"):
        list_images([tmp_path])
    with pytest.raises(InputError, match="found none"):
        list_images([])
