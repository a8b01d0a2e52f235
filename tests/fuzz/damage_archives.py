"""Damage to zip archives (npz, PyTorch's files), npy headers, pickles and safetensors headers."""

import functools
import io
import json
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass

from tests.fuzz.damage import Mutator, mutate_bytes
from tests.fuzz.damage_text import mutate_value, text_of

__all__ = ["ARCHIVES", "PICKLES", "SAFETENSORS", "TARS"]

SIZES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Entry:
    """A file of an archive, as it is written: nothing has to agree."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    checksum: int = 0
    packed: int = 0
    whole: int = 0

    @classmethod
    def of(cls, name: bytes, data: bytes) -> "Entry":
        return cls(name, data, 0, 0, zlib.crc32(data), len(data), len(data))

    def header(self) -> bytes:
        numbers = (20, self.flags, self.method, 0, 33, self.checksum, self.packed, self.whole)
        return struct.pack("<5H3I2H", *numbers, len(self.name), 0)


def pack(entries: list[Entry]) -> bytes:
    parts, directory, at = [], [], 0
    for entry in entries:
        local = b"PK\x03\x04" + entry.header() + entry.name + entry.data
        directory.append(
            b"PK\x01\x02\x14\x00"
            + entry.header()
            + struct.pack("<3H2I", 0, 0, 0, 0, at)
            + entry.name
        )
        parts.append(local)
        at += len(local)
    whole = b"".join(directory)
    count = min(len(entries), 0xFFFF)
    end = struct.pack("<4H2IH", 0, 0, count, count, len(whole), at, 0)
    return b"".join(parts) + whole + b"PK\x05\x06" + end


def unpack(content: bytes) -> list[Entry]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [Entry.of(m.filename.encode(), archive.read(m)) for m in archive.infolist()]


@functools.cache
def zeros(gigabytes: int, start: bytes) -> tuple[bytes, int, int]:
    """A few megabytes that unpack to gigabytes; their checksum, and the length."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = b"\x00" * (1 << 20)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    times, checksum = gigabytes << 10, zlib.crc32(start)
    for _ in range(times):
        checksum = zlib.crc32(block, checksum)
    return first + again * times + packer.flush(), checksum, len(start) + (times << 20)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1", "replace") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text) & 0xFFFF)
    return b"\x93NUMPY" + bytes((version, 0)) + length + text + data


HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (9,), }",
    "{'descr': '|V2', 'fortran_order': False, 'shape': (8,), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': b'<f4', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<f3', 'fortran_order': 1, 'shape': 4}",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,), }",
    "__import__('os').system('touch here')",
    "(" * 200,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
    "{'descr': '<f4'",
    "\x00\xff",
    "",
)


def mutate_member(rng: random.Random, entry: Entry) -> Entry:
    """Change one file, or what the archive says of it."""
    actions = ("bytes", "bytes", "name", "sizes", "method", "flags", "checksum")
    action = rng.choice(
        (*actions, "npy", "npy", "npy") if entry.name.endswith(b".npy") else actions
    )
    if action == "bytes":
        return Entry.of(entry.name, mutate_bytes(rng, entry.data or b"\x00"))
    if action == "npy":
        data = rng.choice((entry.data[128:], b"\x00" * 16, b"\xff" * 16))
        if rng.random() < 0.15:
            start = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (536870912,), }")
            packed, checksum, whole = zeros(2, start)
            return Entry(entry.name, packed, 8, 0, checksum, len(packed), whole)
        return Entry.of(entry.name, npy(rng.choice(HEADERS), data, rng.choice((1, 1, 2, 3, 9))))
    if action == "name":
        names = (b"\xff\xfe.npy", b"../" + entry.name, b"", b"x" * 5000, b"a\x00b.npy", b"\x1b[0m")
        entry.name, entry.flags = rng.choice(names), rng.choice((0, 0x800))
    elif action == "sizes":
        entry.whole, entry.packed = (
            rng.choice((*SIZES, entry.whole)),
            rng.choice((*SIZES, entry.packed)),
        )
    elif action == "method":
        entry.method = rng.choice((8, 9, 12, 14, 93, 99, 65535))
    elif action == "flags":
        entry.flags = rng.choice((1, 8, 0x800, 0x2000, 0xFFFF))
    else:
        entry.checksum ^= 1
    return entry


def mutate_archive(rng: random.Random, content: bytes) -> bytes:
    """Change one file of an archive, drop it, have it twice, or add one."""
    entries = unpack(content)
    number = rng.randrange(len(entries))
    action = rng.randrange(8)
    if action == 0:
        del entries[number]
    elif action == 1:
        entries.insert(rng.randrange(len(entries) + 1), entries[number])
    elif action == 2:
        added = (b"added.npy", b"archive/data.pkl", b"params/added.npy", b"version", b"__init__.py")
        entries.append(Entry.of(rng.choice(added), npy(rng.choice(HEADERS))))
    elif action == 3:
        other = rng.randrange(len(entries))
        entries[number].data, entries[other].data = entries[other].data, entries[number].data
        entries[number] = Entry.of(entries[number].name, entries[number].data)
        entries[other] = Entry.of(entries[other].name, entries[other].data)
    else:
        entries[number] = mutate_member(rng, entries[number])
    return pack(entries)


OPCODES = (
    b"cos\nsystem\nX\x0a\x00\x00\x00touch here\x85R",
    b"cposix\nsystem\n(Vtouch here\ntR.",
    b"cbuiltins\neval\n(V1\ntR",
    b"ctorch\nload\n(Vx\ntR",
    b"ctorch._utils\n_rebuild_tensor_v2\n(tR",
    b"c__builtin__\nbytearray\n(J\x00\x00\x00\x7ftR",
    b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R0",
    b"\x96\x00\x00\x00\x00\x02\x00\x00\x00",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"X\xff\xff\xff\x7f",
    b"(" * 5000,
    b"]" + b"]a" * 20,
    b"}" * 50_000,
    b"\x85" * 50_000,
    b"2" * 5000,
    b"I99999999999999999999\n",
    b"\x8b\xff\xff\xff\x7f",
    b"Fnan\n",
    b"Qhello.",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"r\xff\xff\xff\x7f",
    b"j\xff\xff\xff\xff",
)


def mutate_opcodes(rng: random.Random, content: bytes) -> bytes:
    """Put opcodes into a pickle, alone or as PyTorch's archive has it."""
    if content.startswith(b"PK"):
        entries = unpack(content)
        for number, entry in enumerate(entries):
            if entry.name.endswith(b"/data.pkl"):
                entries[number] = Entry.of(entry.name, mutate_opcodes(rng, entry.data))
        return pack(entries)
    at = rng.choice((2, rng.randrange(2, len(content)), rng.randrange(2, min(200, len(content)))))
    keep = rng.choice((0, 0, 1, 2, 5))
    return content[:at] + rng.choice(OPCODES) + content[at + keep :]


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change the header: types, shapes, offsets, metadata."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.2:
        said = rng.choice((0, 1, length - 1, length + 1, 1 << 31, 1 << 40, (1 << 64) - 1))
        return said.to_bytes(8, "little") + header + data
    text = text_of(mutate_value(rng, json.loads(header))).encode()
    return len(text).to_bytes(8, "little") + text + data


RECORD_VALUES = {
    "embed_dim": (0, -48, 47, 1, 10**9, 1e9, "48", None, [48], True, 24.5),
    "depth": (0, -1, 10**6, 10**12, "2", None, 2.0),
    "num_heads": (0, -1, 5, 10**9, None),
    "patch_size": (0, -8, 10**6, [8, 8], [0, 8], "8", 1e-9),
    "img_size": (0, -32, 10**9, [32, 32], [32], "32", 31),
    "num_classes": (-1, 10**9, "10", None),
    "norm_layer": ("os.system", "torch.nn.LayerNorm", "layernorm", None),
    "act_layer": ("os.system", "gelu"),
    "checkpoint_path": ("../others/secret.pth", "/etc/passwd"),
    "pretrained_cfg": ({"file": "../others/secret.pth"}, {"url": "http://localhost:9/x"}, "x"),
    "pretrained_cfg_overlay": ({"hf_hub_id": "x/y"}, {"url": "file:///etc/passwd"}),
    "pretrained": (True,),
    "cache_dir": ("../others",),
    "scriptable": (True,),
    "mlp_ratio": (0, -1, 1e9, 1e308),
    "global_pool": ("", "avg", "x"),
    "dynamic_img_size": (False, "x"),
    "in_chans": (0, 1, 10**9),
    "self": (1,),
    "a" * 3000: (1,),
}


def mutate_record(rng: random.Random, content: bytes) -> bytes:
    """Change what a file of ours says of its model."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    about = header["__metadata__"]
    sizes = "model_args" if "model_args" in about else "text_model_args"
    key = rng.choice((sizes, sizes, sizes, *about))
    if key == sizes and rng.random() < 0.7:
        name = rng.choice(sorted(RECORD_VALUES))
        value = rng.choice(RECORD_VALUES[name])
        about[key] = json.dumps({**json.loads(about[key]), name: value})
    elif key not in ("model", "text_model"):
        about[key] = rng.choice(
            (
                text_of(mutate_value(rng, json.loads(about[key]))),
                '{"a":' * 3000,
                "",
                "NaN",
                "[1e999]",
            )
        )
    else:
        about[key] = rng.choice(
            (
                "",
                "resnet50",
                "x" * 5000,
                "crate_alpha_base_patch8_224.nothing",
                "../others/secret.pth",
            )
            + ("hf-hub:x/y", "local-dir:/etc", "os.system", "vit_base_patch16_224.dino", "\u202e\n")
        )
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


ARCHIVES: dict[str, Mutator] = {"archive": mutate_archive, "archive ": mutate_archive}
PICKLES: dict[str, Mutator] = {"opcodes": mutate_opcodes}
SAFETENSORS: dict[str, Mutator] = {"header": mutate_safetensors, "record": mutate_record}


# Fields of a tar header: place and length, bytes.
TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (156, 1), (157, 100), (345, 155))
TAR_VALUES = (
    *(b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"x", b"g", b"S", b"\0"),
    *(b"7" * 11, b"00000000000", b"77777", b"-1", b"\x80" + bytes(8) + b"\x7f\xff\xff"),
    *(b"\xff" * 12, b"\xff" * 4 + bytes(8), b"/etc/x.png", b"../x.png", b"a/../../x.png", b"\xff"),
)


def mutate_tar(rng: random.Random, content: bytes) -> bytes:
    """Write another value into a header, and the checksum that then belongs there."""
    changed = bytearray(content)
    starts = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice((1, 1, 2))):
        at, (start, length) = rng.choice(starts), rng.choice(TAR_FIELDS)
        value = rng.choice(TAR_VALUES)[:length].ljust(length, b"\0")
        changed[at + start : at + start + length] = value
        changed[at + 148 : at + 156] = b" " * 8
        changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)


TARS: dict[str, Mutator] = {"tar": mutate_tar}
