"""Damage to pictures that knows their chunks: declared sizes, depths, lengths, orders."""

import functools
import io
import random
import struct
import zlib

from PIL import Image

from tests.fuzz.damage import TOKENS, Mutator, mutate_bytes

__all__ = ["PICTURES"]

SIZES = (0, 1, 2, 0xFF, 30_000, 65_535, 100_000, 0x7FFFFFFF, 0xFFFFFFFF)
OTHERS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n",
    b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 30, 60, 0, 0, 0, 0, 0) + b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"P6\n99999 99999\n255\n" + b"\x00" * 64,
    b"P6 2 2 255\n" + b"\x01" * 12,
    b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00\x68\x04\x00\x00\x16\x00\x00\x00",
    b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, -60000, 1, 24, 0, 0, 0, 0, 0, 0),
    b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00\xff\xff\xff\xff\xff\xff",
    b"GIF89a\xff\xff\xff\xff\x80\x00\x00"
    + b"\x00" * 6
    + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02",
    b"#define x_width 60000\n#define x_height 60000\nstatic char x_bits[] = {0x00};\n",
    b'/* XPM */\nstatic char * x[] = {\n"60000 60000 1 1",\n',
    b"8BPS\x00\x01" + b"\x00" * 6 + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3) + b"\x00" * 14,
)


def mutate_png(rng: random.Random, content: bytes) -> bytes:
    """Change one chunk; its checksum is right again in most cases."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length], None])
        at += 12 + length
    chunk = rng.choice(chunks[:1] * 3 + chunks) if chunks else [b"IHDR", b"", None]
    action = rng.randrange(7)
    if action == 0 and chunk[0] == b"IHDR":
        size = struct.pack(">II", rng.choice(SIZES), rng.choice((*SIZES, 16)))
        chunk[1] = size + chunk[1][8:]
    elif action == 1 and chunk[0] == b"IHDR":
        depth = bytes(rng.choice((0, 1, 2, 4, 8, 16, 255)) for _ in range(2))
        chunk[1] = chunk[1][:8] + depth + bytes(rng.randrange(3) for _ in range(3))
    elif action == 2:
        chunk[0] = rng.choice(
            (b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"IEND")
        )
    elif action == 3:
        chunk[2] = rng.choice(SIZES)  # the length that it says
    elif action == 4:
        chunks.insert(rng.randrange(len(chunks) + 1), chunk)
    elif action == 5:
        bomb = zlib.compress(b"\x00" * (1 << 24), 9)
        text = b"k\x00\x00" + bomb
        chunks.insert(1, [rng.choice((b"zTXt", b"iCCP", b"IDAT")), text, None])
    else:
        chunk[1] = mutate_bytes(rng, chunk[1] or b"\x00")
    parts = [content[:8]]
    for kind, data, length in chunks:
        checksum = zlib.crc32(kind + data) if rng.random() < 0.95 else rng.getrandbits(32)
        said = len(data) if length is None else length
        parts.append(struct.pack(">I", said) + kind + data + struct.pack(">I", checksum))
    return b"".join(parts)


def mutate_jpeg(rng: random.Random, content: bytes) -> bytes:
    """Change one segment: its size, its tables, its place."""
    at, places = 2, []
    while at + 4 <= len(content) and content[at] == 0xFF:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        places.append((at, length + 2))
        if content[at + 1] == 0xDA:
            break
        at += length + 2
    if not places:
        return mutate_bytes(rng, content)
    at, length = rng.choice(places)
    segment, marker = content[at : at + length], content[at + 1]
    action = rng.randrange(6)
    if marker in (0xC0, 0xC2) and action < 3:
        size = struct.pack(">HH", rng.choice(SIZES) & 0xFFFF, rng.choice(SIZES) & 0xFFFF)
        segment = segment[:5] + size + segment[9:]
    elif action == 3:
        segment = segment[:2] + struct.pack(">H", rng.choice((0, 1, 2, 0xFFFF))) + segment[4:]
    elif action == 4:
        segment = rng.choice((b"", segment * 2, segment * 500))
    else:
        segment = segment[:4] + mutate_bytes(rng, segment[4:] or b"\x00")
    return content[:at] + segment + content[at + length :]


def mutate_by_kind(rng: random.Random, content: bytes) -> bytes:
    if content.startswith(b"\x89PNG"):
        return mutate_png(rng, content)
    if content.startswith(b"\xff\xd8"):
        return mutate_jpeg(rng, content)
    return mutate_bytes(rng, content)


def another_kind(rng: random.Random, content: bytes) -> bytes:
    """What is no picture of the suffix's kind, some of which Pillow would start a program for."""
    other = rng.choice((*OTHERS, *TOKENS))
    return rng.choice((other, other + content, other * 3))


@functools.cache
def blank_png(width: int, height: int, depth: int, color: int) -> bytes:
    """A black picture of many pixels in few bytes."""
    row = b"\x00" * (1 + (width * depth * {0: 1, 2: 3, 6: 4}[color] + 7) // 8)
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def large(rng: random.Random, content: bytes) -> bytes:
    """A whole picture of many pixels, or of a strange shape."""
    shapes = ((30_000, 30_000, 1, 0), (9_400, 9_400, 8, 2), (9_400, 9_400, 1, 0), (1, 1, 8, 6))
    shapes += ((1, 60_000, 8, 0), (60_000, 1, 16, 2), (3, 2, 16, 0), (400_000, 200, 1, 0))
    return blank_png(*rng.choice(shapes))


def strange_mode(rng: random.Random, content: bytes) -> bytes:
    """The same picture in another mode and format."""
    pairs = (
        *(
            ("I", "TIFF"),
            ("F", "TIFF"),
            ("CMYK", "JPEG"),
            ("CMYK", "TIFF"),
            ("LAB", "TIFF"),
            ("1", "PNG"),
        ),
        *(
            ("P", "GIF"),
            ("RGBA", "WEBP"),
            ("L", "BMP"),
            ("RGB", "PPM"),
            ("RGB", "EPS"),
            ("RGB", "TGA"),
        ),
        *(
            ("RGB", "ICO"),
            ("RGB", "PCX"),
            ("L", "SGI"),
            ("RGB", "PDF"),
            ("YCbCr", "JPEG"),
            ("I;16", "TIFF"),
        ),
    )
    mode, kind = rng.choice(pairs)
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").convert("L" if mode == "I;16" else mode).save(
        stream, kind
    )
    return stream.getvalue() if rng.random() < 0.5 else mutate_bytes(rng, stream.getvalue())


PICTURES: dict[str, Mutator] = {
    "chunk": mutate_by_kind,
    "chunk ": mutate_by_kind,
    "chunk  ": mutate_by_kind,
    "other kind": another_kind,
    "large": large,
    "mode": strange_mode,
}
