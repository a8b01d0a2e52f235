"""PyTorch files: every kind of tensor as PyTorch reads it, and traps not to step into."""

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from crate_interp.errors import CheckpointError
from crate_interp.weights.files import read_checkpoint

OLD = pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])


def saved(content, path: Path, old: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


@OLD
def test_tensors_of_every_kind_are_read(old, tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "whole": base,
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "every other": base[:, ::2],
        "same storage": base.view(-1)[3:],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        **{
            str(dtype): torch.tensor([0, 1, 2, 3]).to(dtype)
            for dtype in (
                *(torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32),
                *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16),
            )
        },
    }
    path = saved(content, tmp_path / "w.pth", old)
    found = read_checkpoint(path).state_dict
    assert found.keys() == content.keys()
    for key, tensor in content.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        assert torch.equal(found[key].to(torch.float64), tensor.detach().to(torch.float64)), key


@OLD
def test_plain_values_beside_the_weights_do_no_harm(old, tmp_path):
    content = {
        "model": torch.nn.Linear(2, 3).state_dict(),  # an OrderedDict with attributes
        "milestones": collections.Counter([3, 3, 5]),
        "names": {"a", "b"},
        "raw": b"bytes",
        "place": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "type": torch.bfloat16,
        "loss": 0.5,
        "long": 10**40,
    }
    checkpoint = read_checkpoint(saved(content, tmp_path / "w.pth", old))
    assert checkpoint.state_dict.keys() == {"weight", "bias"}
    assert checkpoint.metadata == {"loss": "0.5"}


def test_weights_can_be_changed_and_the_file_stays(tmp_path):
    path = saved({"w": torch.zeros(4)}, tmp_path / "w.pth", False)
    before = path.read_bytes()
    read_checkpoint(path).state_dict["w"] += 1
    assert path.read_bytes() == before


class _Storage:
    """Pickles as a reference to a storage, of any count."""


class _Tensor:
    def __init__(self, *arguments) -> None:
        self.arguments = arguments

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def forged(path: Path, content, count: int = 4, numbers: int = 4) -> Path:
    """A zip file whose pickle is `content`, and whose one storage has so many float32 numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            is_ours = isinstance(value, _Storage)
            return ("storage", torch.FloatStorage, "0", "cpu", count) if is_ours else None

    pickled = io.BytesIO()
    Pickler(pickled, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", b"\0" * 4 * numbers)
    return path


def tensor(shape, strides, offset=0):
    return _Tensor(_Storage(), offset, shape, strides, False, collections.OrderedDict())


def test_forged_file_reads_back(tmp_path):
    path = forged(tmp_path / "w.pth", {"w": tensor((2, 2), (2, 1))})
    assert torch.equal(read_checkpoint(path).state_dict["w"], torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"w": tensor((10**5, 10**5), (10**5, 1))}, {}, "would have 40000000000 bytes"),
        ({"w": tensor((10**5, 100), (0, 0))}, {}, "'w': .* does not fit into its storage of 4"),
        ({"w": tensor((4,), (1,), 1)}, {}, "'w': .* does not fit into its storage of 4"),
        ({"w": tensor((4,), (1,))}, {"count": 10**12}, r"'w': expected 4000000000000 bytes .* 16"),
        (
            {"w": tensor((8,), (1,))},
            {"count": 8},
            "'w': expected 32 bytes in storage '0', found 16",
        ),
        ({"w": tensor((-4,), (1,))}, {}, r"expected the sizes of a tensor, found \(-4,\)"),
        ({"w": tensor((2.0,), (1,))}, {}, r"expected the sizes of a tensor, found \(2\.0,\)"),
        ({"w": tensor((2, 2), (1,))}, {}, r"shape \(2, 2\) with strides \(1,\)"),
        ({"w": tensor((1 << 70,), (1,))}, {}, "expected the sizes of a tensor"),
        ({"w": tensor((1,) * 65, (1,) * 65)}, {}, "expected the sizes of a tensor"),
        ({"w": tensor((2,), (1,))}, {"count": -1}, "is no storage"),
        ({"model": {"w": bytearray(8)}}, {}, r"no tensors in it; it holds \['w'\]"),
        ({("a", ("b",)): 1}, {}, "a key of type tuple"),
    ],
)
def test_what_a_tensor_says_is_compared_with_what_is_there(content, options, message, tmp_path):
    path = forged(tmp_path / "w.pth", content, **options)
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        read_checkpoint(path)


@OLD
def test_sparse_tensor_is_refused(old, tmp_path):
    content = {"w": torch.eye(3).to_sparse(), "v": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"w\.pth: a sparse or quantized tensor"):
        read_checkpoint(saved(content, tmp_path / "w.pth", old))


# A bytearray of 8 GB, from a pickle of 40 bytes: torch.load(weights_only=True) allocates it.
BYTEARRAY = b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R"
PICKLES = {
    "bytearray": (b"\x80\x02}X\x01\x00\x00\x00w" + BYTEARRAY + b"s.", "no tensors"),
    "long text": (b"\x80\x04\x8d" + struct.pack("<Q", 8 << 30) + b"x.", "its pickle is broken"),
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "no tensors"),
    "never kept": (b"\x80\x02h\x05.", "value 5, which it never kept"),
    "empty": (b"\x80\x02.", "takes a value where there is none"),
    "mark": (b"\x80\x02t.", "takes a value where there is none"),
    "call": (b"\x80\x02K\x01)R.", "calls 1, which is no function"),
    "list as dict": (b"\x80\x02]K\x01K\x01s.", "fills a dict, found a list"),
    "endless": (b"\x80\x02}X\x05\x00\x00\x00modelh\x00s", "never kept"),
    "instruction": (b"\x80\x02(i__builtin__\neval\n.", "the instruction INST, unknown"),
    "old text": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "execute code.*os.system"),
    "numbers": (b"\x80\x02I" + b"9" * 5000 + b"\n.", "its pickle is broken"),
    "nested": (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "a key of type tuple"),
    "deep": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "found list"),
    "escape": (b"\x80\x02c\\qos\nsystem\n.", "its pickle is broken: invalid escape"),
    "own key": (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "no tensors"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_traps_in_a_pickle_are_refused(name, tmp_path):
    content, message = PICKLES[name]
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", content)
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z.writestr("a/byteorder", "big"), "another byte order"),
        (
            lambda z: z.writestr("a/data/0", b"\0" * 4096, zipfile.ZIP_DEFLATED),
            "expected it uncompressed",
        ),
    ],
)
def test_archives_that_pytorch_does_not_write_are_refused(change, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        change(archive)
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["a/data.pkl", "w.npy"])
def test_name_in_an_archive_that_is_no_text_is_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr(name, pickle.dumps({}, protocol=2))
        archive.writestr("a/é", b"")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content.replace("é".encode(), b"\xff\xa9"))
    with pytest.raises(CheckpointError, match=r"w\.pth: truncated or damaged zip archive"):
        read_checkpoint(tmp_path / "w.pth")


def test_old_file_with_a_storage_beyond_its_end_is_refused(tmp_path):
    path = saved({"w": torch.zeros(100)}, tmp_path / "w.pth", True)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<q", 100), struct.pack("<q", 1 << 40)))
    with pytest.raises(CheckpointError, match=r"w\.pth: truncated or damaged.*bytes, the file"):
        read_checkpoint(path)
