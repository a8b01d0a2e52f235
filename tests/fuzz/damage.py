"""Damage to bytes of any kind, and the way from a mutator to a target's `mutate`."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.frame import Damage

__all__ = ["BYTES", "Mutator", "damage", "mutate_bytes"]

# Changes the content of a file; the random generator decides how.
Mutator = Callable[[random.Random, bytes], bytes]

TOKENS = (
    *(
        b"\x00",
        b"\xff" * 8,
        b"\n",
        b"\r\n",
        b"\x1b[31m",
        b"\xed\xa0\x80",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b"%s%s%n", b"../../others/secret.png", b"/etc/passwd", b"NaN", b"-Infinity", b"1e999"),
    *(b"9" * 400, b"-1", b"null", b"[]", b"{}", b'"', b"\\ud800", b"[" * 3000, b"{" * 300, b"\t"),
    *(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"PK\x03\x04", b"\x80\x02", b"GIF89a"),
    *("\u202e\u2028\u0085".encode(), "\U0001f600".encode(), b"<svg>", b"%PDF-1.4", b"II*\x00"),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    # half of the time near the start, where headers are
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 256)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, content: bytes) -> bytes:
    near = rng.random() < 0.3
    return content[: rng.randrange(min(len(content), 64) if near else len(content))]


def splice(rng: random.Random, content: bytes) -> bytes:
    start, at = rng.randrange(len(content)), rng.randrange(len(content))
    part = content[start : start + rng.choice((1, 4, 16, 256, 4096))]
    keep = len(part) if rng.random() < 0.5 else 0
    return content[:at] + part + content[at + keep :]


def remove(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 2, 4, 16, 256, 4096)) :]


def insert_token(rng: random.Random, content: bytes) -> bytes:
    at = rng.choice((0, len(content), rng.randrange(len(content))))
    token = rng.choice(TOKENS)
    keep = len(token) if rng.random() < 0.4 else 0
    return content[:at] + token + content[at + keep :]


def blank(rng: random.Random, content: bytes) -> bytes:
    at, length = rng.randrange(len(content)), rng.choice((4, 64, 1024, len(content)))
    filled = rng.choice((b"\x00", b"\xff", b" ")) * len(content[at : at + length])
    return content[:at] + filled + content[at + length :]


def write_number(rng: random.Random, content: bytes) -> bytes:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(min(len(content), rng.choice((64, 1024, 1 << 30))))
    number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
    return content[:at] + number.to_bytes(size, order) + content[at + size :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    part = content[at : at + rng.choice((1, 16, 256))]
    return content[:at] + part * rng.choice((2, 100, 5000)) + content[at:]


def replace_all(rng: random.Random, content: bytes) -> bytes:
    return rng.choice(
        (b"", b"\n", rng.choice(TOKENS), rng.choice(TOKENS) * 100, rng.randbytes(300))
    )


_BYTES: tuple[Mutator, ...] = (flip_bits, flip_bits, flip_bits, truncate, truncate, splice, remove)
_BYTES += (insert_token, insert_token, blank, write_number, write_number, repeat, replace_all)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_BYTES)(rng, content or b"\x00")
    return content


BYTES: dict[str, Mutator] = {"bytes": mutate_bytes}


def damage(
    files: Sequence[str], *tables: dict[str, Mutator], names: Sequence[str] = ()
) -> Callable[[random.Random, Path], Damage]:
    """Make a target's `mutate`: one file of some, damaged by one mutator of some tables.

    Args:
        files: Patterns of their paths, in the target's folder.
        tables: Mutators by name; bytes are mutated in a quarter of the cases anyway.
        names: Words that a refusal may have instead of the file's name.
    """
    mutators = {name: mutator for table in tables for name, mutator in table.items()}

    def mutate(rng: random.Random, folder: Path) -> Damage:
        found = sorted(path for pattern in files for path in folder.glob(pattern))
        path = rng.choice(found)
        name = rng.choice(sorted(mutators)) if mutators and rng.random() < 0.75 else "bytes"
        content = (mutators | BYTES)[name](rng, path.read_bytes())
        path.write_bytes(content)
        return Damage((path.name, *names), f"{name} of {path.relative_to(folder)}")

    return mutate
