"""Files of features, read back by numpy, safetensors, pyarrow and pandas."""

import io
import json
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from crate_interp import Observer, data, load_backbone
from crate_interp.cli import main
from crate_interp.commands import feature_files
from crate_interp.errors import InputError
from crate_interp.hooks import any_resolution

SIZE = 24
SUFFIXES = ("npz", "safetensors", "parquet")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a", "é")):
        (tmp_path / "images" / name).mkdir(parents=True)
        scene = data.draw_scene(np.random.default_rng(number), (40, 64)).image
        Image.fromarray(scene).save(tmp_path / "images" / name / "0.png")
    return tmp_path / "images"


def features(images, output, *options, model="demo"):
    command = [
        "features",
        str(images),
        "--model",
        model,
        "--size",
        str(SIZE),
        "--workers",
        "0",
        "--recursive",
    ]
    precision = ["--precision", "float32", "--device", "cpu"]
    return main([*command, *precision, "--output", str(output), *options])


def read(path):
    """Features, names of images, and provenance."""
    if path.suffix == ".npz":
        arrays = np.load(path, allow_pickle=False)
        assert arrays["image_ids"].tolist() == [1, 2]
        return arrays["features"], arrays["file_names"].tolist(), json.loads(str(arrays["about"]))
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            assert file.get_tensor("image_ids").tolist() == [1, 2]
            names = json.loads(metadata["file_names"])
            return file.get_tensor("features"), names, json.loads(metadata["about"])
    pandas = pytest.importorskip("pandas", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads and writes Parquet")
    rows = pandas.read_parquet(path)
    numbers = np.stack(rows["feature"])
    if "row" in rows:
        grid = (rows["grid_rows"][0], rows["grid_columns"][0])
        places = np.indices(grid).reshape(2, -1)
        for one in (rows[rows["image_id"] == number] for number in (1, 2)):
            np.testing.assert_array_equal(one[["row", "column"]].T, places)
        numbers = numbers.reshape(2, *grid, -1)
    metadata = parquet.ParquetFile(path).schema_arrow.metadata
    return numbers, list(dict.fromkeys(rows["file_name"])), json.loads(metadata[b"about"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("pool", ["none", "mean", "class"])
def test_features_are_those_of_the_model(folder, tmp_path, suffix, pool):
    output = tmp_path / "out" / f"f.{suffix}"
    options = ["--site", "key", "--block", "1", "--pool", pool]
    assert features(folder, output, *options) == 0
    found, names, about = read(output)
    observer = Observer(load_backbone("demo"), SIZE)
    rgb = [data.read_image(folder / name) for name in ("a/0.png", "é/0.png")]
    recorded = observer.activations(rgb, ["key"], [1])
    patches = recorded.patch_features("key", 1).transpose(1, 2).numpy()
    expected = {
        "none": patches.reshape(2, *recorded.grid_hw, -1),
        "mean": patches.mean(axis=1),
        "class": recorded["key", 1][:, 0].numpy(),
    }[pool]
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert names == ["a/0.png", "é/0.png"]
    assert about["settings"]["feature"] == "key"
    assert about["settings"]["pool"] == pool
    assert len(about["weights"]["sha256"]) == 64
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("model", ["demo", "demo_vit"])
def test_pool_head_is_what_the_head_reads(folder, tmp_path, model):
    assert features(folder, tmp_path / "f.npz", "--pool", "head", model=model) == 0
    found, _, _ = read(tmp_path / "f.npz")
    observer = Observer(load_backbone(model), SIZE)
    images = [data.read_image(folder / name) for name in ("a/0.png", "é/0.png")]
    with torch.inference_mode(), any_resolution(observer.model):
        tokens = observer.model.forward_features(observer.pixels(images))
        expected = observer.model.forward_head(tokens, pre_logits=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_images_of_different_aspects_have_rows_of_their_grids(folder, tmp_path):
    pandas = pytest.importorskip("pandas", reason="reads Parquet")
    pytest.importorskip("pyarrow", reason="writes Parquet")
    Image.new("RGB", (40, 40)).save(folder / "a" / "1.png")
    assert features(folder, tmp_path / "f.parquet", "--keep-aspect") == 0
    rows = pandas.read_parquet(tmp_path / "f.parquet")
    grids = rows[["file_name", "grid_rows", "grid_columns"]].drop_duplicates()
    sides = {"a/0.png": [6, 10], "a/1.png": [6, 6], "é/0.png": [6, 10]}
    assert {name: grid for name, *grid in grids.to_numpy().tolist()} == sides
    assert rows.groupby("file_name").size().to_dict() == {
        name: rows * columns for name, (rows, columns) in sides.items()
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("f.csv", [], "expected a name that ends in .npz, .parquet, .safetensors"),
        ("f.npz", ["--keep-aspect"], "--keep-aspect: .npz has one patch grid for all images"),
        ("f.npz", ["--pool", "head", "--block", "0"], "--pool head: is what leaves the last block"),
        ("f.npz", ["--site", "codes", "--model", "demo_vit"], "has no site codes"),
        ("f.npz", ["--block", "9"], "block 9 is out of range"),
        ("f.npz", ["--pool", "mean", "--debias"], "--debias: has no effect"),
        ("f.npz", ["--pool", "class", "--norm-filter", "2"], "--norm-filter: has no effect"),
    ],
)
def test_wrong_options_are_refused(folder, tmp_path, name, options, message, capsys):
    assert features(folder, tmp_path / name, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_model_without_a_class_token_has_no_feature_of_it(folder, tmp_path, capsys):
    sizes = '{"embed_dim": 48, "num_heads": 3, "depth": 1}'
    model = ["--weights", "random", "--model-args", sizes, "--size", "32", "--pool", "class"]
    name = "vit_base_patch16_siglip_224"
    assert features(folder, tmp_path / "f.npz", *model, model=name) == 2
    assert "--pool class: VisionTransformer has no class token" in capsys.readouterr().err


class Lazily(list):
    """Entries whose features are made when they are asked for, 1 MB each."""

    def __iter__(self):
        return ({**self[number]} for number in range(len(self)))

    def __getitem__(self, number):
        features = np.full((16, 16, 1024), number, np.float32)
        return {"image_id": number, "file_name": str(number), "features": features}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_images(tmp_path, suffix, monkeypatch):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="writes Parquet")
    monkeypatch.setattr(feature_files, "_ROW_GROUP", 1 << 21)
    entries = Lazily(range(40))
    tracemalloc.start()
    with (tmp_path / f"f.{suffix}").open("wb") as file:
        feature_files.WRITERS[f".{suffix}"](entries, {}, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20
    if suffix != "parquet":
        assert (tmp_path / f"f.{suffix}").stat().st_size > 40 << 20


def test_names_that_safetensors_has_no_room_for_are_an_error(monkeypatch):
    monkeypatch.setattr(feature_files, "_LARGEST_HEADER", 200)
    with pytest.raises(InputError, match="the names of 40 images take"):
        feature_files.write_safetensors(Lazily(range(40)), {}, io.BytesIO())


def test_features_list_no_options_of_figures(capsys):
    with pytest.raises(SystemExit):
        main(["features", "--help"])
    shown = capsys.readouterr().out
    assert "--block" in shown
    assert not {"--dpi", "--format", "--width"} & set(shown.replace("[", " ").split())
