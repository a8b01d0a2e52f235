"""Models on a stand-in for the hub: put there by us, and read by us and by timm itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from crate_interp import CheckpointError, InputError, from_pretrained, load_backbone, push_to_hub
from crate_interp.weights import create_backbone, resolve_name, write_safetensors
from crate_interp.weights.hub import record_of_config
from crate_interp.weights.records import ModelRecord
from tests.weights.hub_stand_in import running_hub

ROOT = Path(__file__).parents[2]

# Where the hub is, is read when huggingface_hub is imported, so that it takes a process of its own.
READ = """
import json, sys
import timm, torch
import crate_interp
from crate_interp.cli import main

torch.set_num_threads(1)
file, foreign, folder = sys.argv[1:]
assert main(["push", file, "me/ours", "--private"]) == 0
image = torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48)
models = {
    "file": crate_interp.load_backbone(file),
    "ours": crate_interp.from_pretrained("me/ours"),
    "timm": timm.create_model("hf-hub:me/ours", pretrained=True).eval(),
    "foreign": crate_interp.load_backbone("hf-hub:you/theirs"),
    "foreign_timm": timm.create_model("hf-hub:you/theirs", pretrained=True).eval(),
}
found = {}
with torch.inference_mode():
    for name, model in models.items():
        config = timm.data.resolve_model_data_config(model)
        size = 32 if name.startswith("foreign") else 48
        found[name] = {
            "class": type(model).__name__,
            "scores": model(image[..., :size, :size])[0].tolist(),
            **{key: config[key] for key in ("input_size", "mean", "std")},
        }
labels = models["timm"].pretrained_cfg["label_names"]
command = ["features", "photos", "--model", "hf-hub:me/ours", "--size", "48", "--limit", "1"]
code = main([*command, "--workers", "0", "--pool", "head", "--output", folder + "/f.npz"])
wrong = {}
for name in ("me/gone", "me/empty", "me/pickled", "no name"):
    try:
        crate_interp.from_pretrained(name)
    except crate_interp.InputError as error:
        wrong[name] = [type(error).__name__, str(error)]
print(json.dumps({"models": found, "labels": labels, "code": code, "wrong": wrong}))
"""


def model_file(path, name="crate_demo", **sizes):
    """An untrained model of ours as the file that training writes."""
    torch.manual_seed(0)
    model = create_backbone(resolve_name(name), num_classes=3, **sizes)
    torch.nn.init.normal_(model.head.weight)
    record = ModelRecord(name, sizes, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    metadata = {**record.to_metadata(), "classes": json.dumps(["a", "b", "ç"])}
    write_safetensors(path, model.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def found(hub, tmp_path_factory):
    """What a process finds that pushes and loads."""
    folder = tmp_path_factory.mktemp("hub")
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 48}
    file = model_file(folder / "ours.safetensors", **sizes)
    sizes = {"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 8, "img_size": 32}
    foreign = create_backbone(resolve_name("vit_tiny_patch16_224"), num_classes=2, **sizes)
    write_safetensors(folder / "theirs.safetensors", foreign.state_dict(), {"format": "pt"})
    pretrained = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32]}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 2,
        "model_args": sizes,
        "pretrained_cfg": {**pretrained, "first_conv": "patch_embed.proj", "classifier": "head"},
    }
    content = (folder / "theirs.safetensors").read_bytes()
    hub.repositories["you/theirs"] = {
        "model.safetensors": content,
        "config.json": json.dumps(config).encode(),
    }
    hub.repositories["me/empty"] = {}
    hub.repositories["me/pickled"] = {"pytorch_model.bin": b"", "config.json": b"{}"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file), str(folder / "theirs.safetensors"), str(folder)],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(folder / "hf"),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "file": file, "stderr": done.stderr}


def test_a_pushed_model_is_the_same_by_us_and_by_timm(found):
    models = found["models"]
    for name in ("ours", "timm"):
        assert models[name]["class"] == "Crate"
        assert models[name]["scores"] == pytest.approx(models["file"]["scores"], abs=1e-5)
        assert (models[name]["mean"], models[name]["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert models["timm"]["input_size"] == [3, 48, 48]
    assert found["labels"] == ["a", "b", "ç"]


def test_what_is_pushed_is_the_file_a_configuration_and_a_card(found, hub):
    files = hub.repositories["me/ours"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["model.safetensors"] == found["file"].read_bytes()
    config = json.loads(files["config.json"])
    assert config["architecture"] == "crate_demo"
    assert config["model_args"]["embed_dim"] == 32
    assert "url" not in config["pretrained_cfg"]
    assert 'from_pretrained("me/ours")' in files["README.md"].decode()
    assert "me/ours" in hub.private


def test_a_model_that_timm_put_there_is_loaded(found):
    ours, timms = found["models"]["foreign"], found["models"]["foreign_timm"]
    assert ours["scores"] == pytest.approx(timms["scores"], abs=1e-5)
    assert ours["mean"] == [0.1, 0.2, 0.3]


def test_commands_take_a_model_of_the_hub(found):
    assert found["code"] == 0


def test_what_is_not_on_the_hub_is_named(found):
    wrong = found["wrong"]
    assert wrong["no name"] == [
        "InputError",
        "expected a repository of the hub, USER/NAME, found 'no name'",
    ]
    for name in ("me/gone", "me/empty", "me/pickled"):  # a pickle is not even asked for
        kind, message = wrong[name]
        assert kind == "CheckpointError"
        assert message.startswith(f"hf-hub:{name}: cannot be fetched: ")
        assert "\n" not in message


def test_files_that_do_not_know_their_model_are_refused(tmp_path):
    write_safetensors(tmp_path / "f.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(InputError, match=r"f\.safetensors: does not say which model it is"):
        push_to_hub(tmp_path / "f.safetensors", "me/ours")
    with pytest.raises(CheckpointError, match="no such file"):
        push_to_hub(tmp_path / "gone.safetensors", "me/ours")
    with pytest.raises(InputError, match="expected a repository of the hub"):
        push_to_hub(tmp_path / "f.safetensors", "no name")
    with pytest.raises(InputError, match="holds its own weights"):
        load_backbone("hf-hub:me/ours", tmp_path / "f.safetensors")
    with pytest.raises(InputError, match="and for pretrained=False"):
        from_pretrained("me/ours", pretrained=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.json"),
        ('{"architecture": 3}', "architecture"),
        ('{"architecture": "vit", "num_classes": 2}', "pretrained_cfg"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        record_of_config(tmp_path / "config.json")


def test_an_unreachable_hub_is_asked_once(monkeypatch, caplog):
    asked = []

    def refuse(url):
        asked.append(url)
        raise OSError("connection refused")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    message = "hf-hub:me/nowhere: cannot be fetched: connection refused"
    with pytest.raises(CheckpointError, match=message):
        from_pretrained("me/nowhere")
    assert len(asked) == 1
    assert not caplog.text
