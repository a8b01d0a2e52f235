"""Downloads against a server on this machine that speaks the Hugging Face hub's protocol."""

import hashlib
import http.server
import logging
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch

from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights import (
    load_backbone,
    parameters_checksum,
    read_checkpoint,
    resolve_name,
    resolve_weights,
    sources,
    weights_checksum,
)
from crate_interp.weights.sources import (
    checkpoints_folder,
    fetch_weights,
    find_local_weights,
    is_available_locally,
    weight_source,
)

REPOSITORY = "UCSC-VLAA/CRATE-alpha"
IN21K = "torch/in21k_Pretrain/crate_alpha_L14_IN21K"  # its checksum is not in the manifest
IN1K = "torch/crate_alpha_L14.pth"  # its checksum is
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Files by `repository/resolve/main/path`; the tag and length it announces may be lies."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, bytes] = {}  # what tag and length are computed from
        self.requests: list[tuple[str, str]] = []

    def put(self, repository: str, filename: str, body: bytes, announced: bytes | None = None):
        path = f"/{repository}/resolve/main/{filename}"
        self.files[path] = body
        self.announced[path] = body if announced is None else announced

    def downloads(self) -> int:
        return len([path for method, path in self.requests if method == "GET" and "main" in path])


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool):
        self.server.requests.append((self.command, self.path))
        body = self.server.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        announced = self.server.announced[self.path]
        self.send_header("ETag", f'"{hashlib.sha256(announced).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(announced)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def use_hub(monkeypatch, cache: Path, endpoint: str, offline: bool = False) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use_hub(monkeypatch, tmp_path / "cache", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_weights_downloads_once(hub, monkeypatch, tmp_path, caplog):
    name = resolve_name("crate_alpha_L14.in21k")
    hub.put(REPOSITORY, IN21K, b"weights" * 1000)
    assert not is_available_locally("crate_alpha_L14.in21k")
    with caplog.at_level(logging.WARNING):
        path = fetch_weights(name)
    assert "downloading the weights of crate_alpha_large_patch14_224.in21k (1090 MB)" in caplog.text
    assert path.read_bytes() == b"weights" * 1000
    assert path.name == "crate_alpha_L14_IN21K"
    assert is_available_locally("crate_alpha_L14.in21k")
    assert hub.downloads() == 1
    seen = len(hub.requests)

    assert fetch_weights(name) == path
    assert len(hub.requests) == seen  # not even a HEAD

    use_hub(monkeypatch, tmp_path / "cache", "http://127.0.0.1:9", offline=True)
    assert fetch_weights(name) == path


def test_load_backbone_downloads_the_file_that_it_loads(hub, reference):
    file = reference / "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
    hub.put(REPOSITORY, IN21K, file.read_bytes())
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
    model = load_backbone("crate_alpha_L14.in21k", **sizes)
    expected = read_checkpoint(file).state_dict["mlp_head.1.weight"]
    assert torch.equal(model.head.weight, expected)
    load_backbone("crate_alpha_L14.in21k", **sizes)
    assert hub.downloads() == 1
    assert weights_checksum(resolve_weights("crate_alpha_L14.in21k")) == weights_checksum(file)


def test_fetch_weights_takes_the_first_file_a_timm_repository_has(hub):
    name = resolve_name("dino_vits8")
    hub.put("timm/vit_small_patch8_224.dino", "pytorch_model.bin", b"second choice")
    assert fetch_weights(name).read_bytes() == b"second choice"
    assert is_available_locally("dino_vits8")
    heads = [path for method, path in hub.requests if method == "HEAD"]
    assert heads[0].endswith("/model.safetensors")


def test_fetch_weights_offline_says_which_file_to_put_where(monkeypatch, tmp_path):
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9", offline=True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set") as caught:
        fetch_weights(resolve_name("crate_alpha_B8.in21k"))
    for part in (REPOSITORY, "torch/in21k_Pretrain/crate_alpha_B8_IN21K", "--weights FILE"):
        assert part in str(caught.value)


@pytest.mark.parametrize("announced", [b"honest" * 10, b"honest" * 5])
def test_fetch_weights_refuses_truncated_and_wrong_files(hub, announced):
    hub.put(REPOSITORY, IN21K, b"forged" * 5, announced)
    with pytest.raises(CheckpointError, match=r"Consistency check|not the published file"):
        fetch_weights(resolve_name("crate_alpha_L14.in21k"))
    assert not is_available_locally("crate_alpha_L14.in21k")

    hub.put(REPOSITORY, IN21K, announced)  # the next try starts anew
    assert fetch_weights(resolve_name("crate_alpha_L14.in21k")).read_bytes() == announced


def test_fetch_weights_checks_the_manifests_checksum(hub):
    hub.put(REPOSITORY, IN1K, b"consistent with itself, but not what was published")
    expected = "35b042fb5249f3dc09ee43b6c8cb6a70b6cf3758d37ed760bcb79652e0013386"
    with pytest.raises(CheckpointError, match=f"expected SHA-256 {expected}, found"):
        fetch_weights(resolve_name("crate_alpha_L14"))
    assert not is_available_locally("crate_alpha_L14")


def test_fetch_weights_names_a_file_that_the_hub_does_not_have(hub):
    with pytest.raises(CheckpointError, match="the hub has no such file"):
        fetch_weights(resolve_name("crate_alpha_L14.in21k"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crate_S16", "cannot be downloaded by a program.*drive.google.com.*--weights FILE"),
        ("crate_mae_B16", "cannot be downloaded by a program.*drive.google.com"),
        ("crate_B8", "cannot be downloaded by a program.*colab"),
        ("vit_S8", "no weights are published for vit_small_patch8_224"),
        ("crate_alpha_tiny_patch16_224", "no weights are published"),
    ],
)
def test_fetch_weights_says_where_a_person_gets_the_rest(name, message):
    assert not is_available_locally(name)
    with pytest.raises(CheckpointError, match=message):
        fetch_weights(resolve_name(name))


def test_shipped_weights_are_found_or_missed_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path)
    (tmp_path / "manifest.json").write_text('{"crate_alpha_demo": {"file": "demo.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"shipped weights are missing.*demo\.safetensors"):
        fetch_weights(resolve_name("demo"))
    (tmp_path / "demo.safetensors").write_bytes(b"weights")
    assert fetch_weights(resolve_name("demo")) == tmp_path / "demo.safetensors"
    (tmp_path / "manifest.json").write_text('{"crate_demo": {"size_mb": "3"}}')
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*size_mb: expected int"):
        is_available_locally("crate_alpha_demo")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json: the manifest .* cannot be read"):
        fetch_weights(resolve_name("demo"))


def test_every_manifest_entry_names_weights_and_says_where_they_are():
    for full_name in sources._manifest():
        source = weight_source(resolve_name(full_name))
        assert source is not None
        assert source.name == full_name
        assert [bool(source.file), bool(source.hub_id), bool(source.link)].count(True) == 1
        if source.file:
            assert source.file.parent == checkpoints_folder()
            assert weights_checksum(source.file) == source.sha256


def test_checkpoints_folder_is_found_in_a_checkout_and_installed(monkeypatch, tmp_path):
    assert (checkpoints_folder() / "manifest.json").is_file()
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "crate_interp" / "weights" / "w.py"))
    assert checkpoints_folder() == tmp_path / "checkpoints"
    (tmp_path / "crate_interp" / "checkpoints").mkdir(parents=True)
    assert checkpoints_folder() == tmp_path / "crate_interp" / "checkpoints"


def test_is_available_locally_refuses_an_unknown_model():
    with pytest.raises(InputError, match="nearest names"):
        is_available_locally("crate_alpha_X8")


def test_weights_checksum_equals_hashlib_and_refuses_a_missing_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(b"0123456789abcdef" * 200_000)  # several chunks
    for name in ("empty", "large"):
        expected = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert weights_checksum(tmp_path / name) == expected
    with pytest.raises(CheckpointError, match="missing: cannot be read"):
        weights_checksum(tmp_path / "missing")


def test_find_local_weights_of_a_link_is_none():
    source = weight_source(resolve_name("crate_S16"))
    assert source is not None
    assert find_local_weights(source) is None


def test_parameters_checksum_tells_parameters_apart_whatever_their_file():
    tiny = {"embed_dim": 24, "depth": 1, "num_heads": 3}

    def made(seed, **differences):
        torch.manual_seed(seed)
        return load_backbone("crate_demo", pretrained=False, **tiny | differences)

    model = made(0)
    checksum = parameters_checksum(model)
    assert len(checksum) == 64
    assert checksum == parameters_checksum(made(0))
    assert checksum != parameters_checksum(made(1))
    assert checksum != parameters_checksum(made(0, num_classes=3))
    assert checksum != parameters_checksum(made(0).double())
    with torch.no_grad():
        model.cls_token[0, 0, 0] += 1e-6
    assert checksum != parameters_checksum(model)
    assert parameters_checksum(torch.nn.Identity()) == hashlib.sha256().hexdigest()
