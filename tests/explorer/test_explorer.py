"""What a page asks, without a browser: controls, links, pictures, kept passes, and the numbers."""

import asyncio
import csv
import io
import json
import re
import shlex
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from threading import Event
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from crate_interp import data
from crate_interp.cli import main
from crate_interp.errors import InputError
from crate_interp.explorer.controls import view_of
from crate_interp.explorer.downloads import download
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.gate import Gate
from crate_interp.explorer.markup import alert_html, answer_html, command_line
from crate_interp.explorer.models import Models
from crate_interp.explorer.passes import Passes
from crate_interp.explorer.picture_markup import picture_html
from crate_interp.explorer.pictures import Pictures
from crate_interp.explorer.scene import read_shown_atlas
from crate_interp.explorer.selection import Selection, link_of, selection_of
from crate_interp.runs.options import ModelOptions

OPTIONS = ["--workers", "0", "--device", "cpu", "--dpi", "30", "--format", "png"]
SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rgb = data.open_coco("photos").records[0].read()
    Image.fromarray(rgb).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def explorer(folder):
    options = [ModelOptions(model=name, device="cpu") for name in ("demo", "demo_vit")]
    return Explorer(Models(options), Pictures([str(folder)]))


@pytest.fixture
def selection(explorer, folder):
    return Selection(f"{folder.name}/a.png", "demo", "heads", size=SIZE)


def look(explorer, selection, view, model="demo", kind="", patch="", **options):
    changed = Selection(
        selection.picture, model, view, kind, size=SIZE, patch=patch, options=options
    )
    ((_, answer),) = explorer.look(explorer.checked(changed))
    return answer


def run(answer, folder, output, monkeypatch):
    """Run the command line of an answer in the folder of the picture."""
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command_line(answer))
    assert program == "crate-interp"
    at = arguments.index("--output")
    assert main([*arguments[:at], *arguments[at + 2 :], *OPTIONS, "--output", str(output)]) == 0


@pytest.mark.parametrize(("model", "patch"), [("demo", ""), ("demo_vit", "40,50")])
def test_heads_are_those_of_attention(
    explorer, selection, folder, tmp_path, monkeypatch, model, patch
):
    options = {"block": 2, "threshold": 0.5, "threshold_by": "entries"}
    answer = look(explorer, selection, "heads", model, patch=patch, **options)
    run(answer, folder, tmp_path / "out", monkeypatch)
    with np.load(tmp_path / "out" / "a.npz") as numbers:
        for name in ("maps", "masks"):
            np.testing.assert_array_equal(answer.numbers[name], numbers[name])


def test_components_are_those_of_pca(explorer, selection, folder, tmp_path, monkeypatch):
    answer = look(explorer, selection, "pca", foreground=0.4)
    run(answer, folder, tmp_path / "pca.png", monkeypatch)
    with np.load(tmp_path / "pca.npz") as numbers:
        for name, values in answer.numbers.items():
            np.testing.assert_array_equal(values, numbers[name])


@pytest.mark.parametrize("method", ["maskcut", "attention", "votecut"])
def test_masks_are_those_of_segment(explorer, selection, folder, tmp_path, monkeypatch, method):
    answer = look(explorer, selection, "masks", kind=method)
    run(answer, folder, tmp_path / "run", monkeypatch)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    masks = [data.decode_mask(result["segmentation"]) for result in results]
    assert len(masks) == len(answer.masks)
    for mask, own, score, result in zip(
        masks, answer.masks, answer.numbers["scores"], results, strict=True
    ):
        np.testing.assert_array_equal(mask, own)
        assert result["score"] == score


def test_rates_are_those_of_layers(explorer, selection, folder, tmp_path, monkeypatch):
    answer = look(explorer, selection, "rates")
    run(answer, folder, tmp_path / "layers.png", monkeypatch)
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("coding_rate", "sparsity", "objective"):
        assert [float(row[name]) for row in rows] == answer.numbers[name].tolist()


@pytest.mark.parametrize(
    ("target", "effect"), [("heads", "logit"), ("heads", "mask"), ("atoms", "logit")]
)
def test_effects_are_those_of_ablate(
    explorer, selection, folder, tmp_path, monkeypatch, target, effect
):
    options = {"target": target, "effect": effect, "block": 1, "off": "0,2", "measured": 3}
    answer = look(explorer, selection, "switched-off", **options)
    run(answer, folder, tmp_path / "out", monkeypatch)
    with np.load(tmp_path / "out" / "ablation.npz") as numbers:
        np.testing.assert_array_equal(answer.numbers[target[:-1]], numbers[target[:-1]])
        np.testing.assert_allclose(answer.numbers["effects"], numbers["effects"][0], rtol=1e-5)
    assert "Without" in answer.text
    assert len(answer.pictures) == 2


def test_attribution_is_that_of_attribute(explorer, selection, folder, tmp_path, monkeypatch):
    pytest.importorskip("captum", reason="needs the extra attribution")
    answer = look(explorer, selection, "attribution", class_=2, gradients=True, steps=2)
    run(answer, folder, tmp_path / "out.png", monkeypatch)
    with np.load(tmp_path / "out.npz") as numbers:
        for name, values in answer.numbers.items():
            np.testing.assert_allclose(values, numbers[name][0], rtol=1e-4, atol=1e-6)


def test_integrated_gradients_say_that_captum_is_missing(explorer, selection, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert "captum" not in look(explorer, selection, "attribution").text
    with pytest.raises(InputError, match=r"crate-interp\[attribution\]"):
        look(explorer, selection, "attribution", gradients=True)


def test_atoms_are_those_of_the_command(explorer, selection, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--model", "demo", "--block", "2", "--size", str(SIZE), "--sheet", "0"]
    assert main(["atlas", str(folder), *options, *OPTIONS[:4], "--output", "atlas"]) == 0
    without = look(explorer, selection, "atoms", block=2, patch="30,40")
    assert "crate-interp atlas FOLDER --model demo --block 2" in without.text
    assert not without.command
    with_atlas = Explorer(explorer.models, explorer.pictures, read_shown_atlas(Path("atlas")))
    answer = look(with_atlas, selection, "atoms", block=2, patch="30,40")
    assert len(answer.pictures) > len(without.pictures)
    assert "The atlas is of block 2" in look(with_atlas, selection, "atoms", block=1).text
    (folder / "atlas").symlink_to(tmp_path / "atlas")
    monkeypatch.chdir(folder)
    arguments = list(answer.command)[:-1]
    assert main([*arguments, str(tmp_path / "atoms.png"), "--dpi", "30", "--device", "cpu"]) == 0
    with (tmp_path / "atoms.csv").open(newline="") as file:
        shares = {int(row["atom"]): float(row["share"]) for row in csv.DictReader(file)}
    assert answer.numbers["share"].tolist() == [shares[atom] for atom in sorted(shares)]


def test_every_kind_of_view_has_controls_whose_defaults_it_takes(explorer):
    for (name, kind), controls in explorer.controls.items():
        values = {control.name: control.value_of(control.default) for control in controls}
        view = view_of(explorer.views[name].kinds()[kind], values)
        assert {control.name for control in controls} == {own.name for own in fields(view)}
        for control in controls:
            if control.kind == "slider":
                low, high, _ = control.limits
                assert low <= control.default <= high
                for number in (low, high):
                    view_of(type(view), {control.name: control.value_of(number)})


BAD = [
    ({"model": "other"}, "model: expected one of demo, demo_vit"),
    ({"beside": "other"}, "model: expected one of"),
    ({"view": "os"}, "view: expected one of"),
    ({"kind": "x"}, "kind: expected one of"),
    ({"size": 100_000}, "size: expected one of"),
    ({"patch": "1;2"}, "patch: expected Y,X"),
    ({"options": {"block": 4}}, "block: expected 0 to 3, found 4"),
    ({"options": {"block": "nan"}}, "block: expected a number"),
    ({"options": {"block": None}}, "block: expected a number"),
    ({"options": {"head": 17}}, "head: expected one of all, mean"),
    ({"options": {"threshold": 0}}, "threshold: expected 0.01 to 1"),
    ({"options": {"__class__": 1}}, "option: expected one of block"),
    ({"picture": "photos/../x"}, "picture: expected one of photos"),
    ({"picture": "/etc/passwd"}, "set: expected one of"),
    ({"picture": "uploads/1"}, "no longer kept"),
    ({"picture": ""}, "set: expected one of"),
    ({"patch": "9999,0"}, "lies outside the image"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_a_forged_request_asks_for_is_refused_in_one_line(
    explorer, selection, change, message
):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        explorer.look(explorer.checked(replace(selection, **change)))
    assert "\n" not in str(caught.value)


def test_a_link_says_what_a_page_shows(explorer, selection):
    shown = replace(
        selection, view="masks", kind="tokencut", beside="demo_vit", patch="3,4", options={}
    )
    shown = explorer.checked(replace(shown, options={"tau": 0.5}))
    link = link_of(shown, explorer.defaults(shown))
    assert link.endswith("&view=masks&kind=tokencut&o.tau=0.5")
    assert explorer.checked(selection_of(dict(parse_qsl(link)), explorer.start)) == shown
    assert explorer.checked(selection_of({}, explorer.start)) == explorer.checked(explorer.start)
    with pytest.raises(InputError, match="link: 'picture' is too long"):
        selection_of({"picture": 1000 * "x"}, explorer.start)
    with pytest.raises(InputError, match="size: expected a number"):
        selection_of({"size": "-1"}, explorer.start)


def test_a_pass_is_run_once_and_old_ones_make_room(explorer, selection, folder):
    passes, model = Passes(), explorer.models.get("demo")
    picture = explorer.pictures.get(selection.picture)
    first = passes.activations(picture, "demo", model.observer, ["key"], [0, 1])
    again = passes.activations(picture, "demo", model.observer, ["key"], [1])
    assert again is first
    assert passes.runs == 1
    more = passes.activations(picture, "demo", model.observer, ["tokens"], [-1])
    assert {("key", 0), ("key", 1), ("tokens", 3)} == set(more)
    bounded = Passes(most_bytes=1)
    for size in (96, 128):
        bounded.activations(picture, "demo", model.at(size), ["key"], [0])
    bounded.activations(picture, "demo", model.at(96), ["key"], [0])
    assert bounded.runs == 3


def test_pictures_are_those_of_the_start_and_uploads(folder, monkeypatch):
    pictures = Pictures([str(folder)])
    assert pictures.sets() == [folder.name, "photos", "demo"]
    assert pictures.keys(folder.name) == [f"{folder.name}/a.png"]
    content = (folder / "a.png").read_bytes()
    one = pictures.add(content, "../../a\\b.png")
    assert one.name == "b.png"
    assert pictures.get(one.key) is one
    monkeypatch.setattr("crate_interp.explorer.pictures._KEPT_BYTES", 1)
    other = pictures.add(content + b"\0", "c.png")
    with pytest.raises(InputError, match="no longer kept"):
        pictures.get(one.key)
    assert pictures.get(other.key) is other
    with pytest.raises(InputError, match=r"x\.png: cannot be read"):
        pictures.add(b"", "x.png")
    with pytest.raises(InputError):
        Pictures([str(folder / "nothing")])


def test_models_are_those_of_the_start():
    with pytest.raises(InputError, match="each once, found demo demo"):
        Models([ModelOptions(model="demo"), ModelOptions(model="demo")])
    with pytest.raises(InputError, match="expected one or more"):
        Models([])


def test_words_of_a_picture_are_no_markup(explorer, selection, folder):
    name = "<script>alert(1)</script>.png"
    picture = explorer.pictures.add((folder / "a.png").read_bytes(), name)
    answers = explorer.look(explorer.checked(replace(selection, picture=picture.key)))
    for text in (picture_html(picture), answer_html(answers), alert_html(name)):
        assert "<script" not in text


def test_files_of_an_answer(explorer, selection):
    ((scene, answer),) = explorer.look(explorer.checked(selection))
    name, content = download("numbers", scene, answer)
    assert name == "a-demo.npz"
    with np.load(io.BytesIO(content)) as numbers:
        np.testing.assert_array_equal(numbers["maps"], answer.numbers["maps"])
    name, content = download("masks", scene, answer)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == len(answer.masks)
        with Image.open(archive.open("2.png")) as mask:
            np.testing.assert_array_equal(np.array(mask) == 255, answer.masks[1])
    name, content = download("pictures", scene, answer)
    with Image.open(io.BytesIO(content)) as drawn:
        assert drawn.format == "PNG"
    with pytest.raises(InputError, match="expected one of pictures, masks, numbers"):
        download("../x", scene, answer)


def refused(path, headers=(), chunks=(b"",), most=10):
    """Status of the answer to a request, and whether it was handed on."""
    sent, bodies = [], []
    parts = [
        {"type": "http.request", "body": part, "more_body": number < len(chunks)}
        for number, part in enumerate(chunks, start=1)
    ]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers)}
    asyncio.run(Gate(app, most, Event())(scope, receive, send))
    return sent[0]["status"], bodies


def test_the_gate_lets_through_what_the_page_needs():
    join = "/gradio_api/queue/join"
    assert refused("/") == (200, [b""])
    assert refused(join, chunks=[b"ab", b"cd"]) == (200, [b"abcd"])
    assert refused(join, chunks=[b"abcdefgh", b"abcdefgh", b"x"]) == (413, [])
    assert refused(join, headers=[(b"content-length", b"11")]) == (413, [])
    assert refused(join, headers=[(b"content-length", b"-1")]) == (413, [])
    for path in ("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/assets/../x", "/x"):
        assert refused(path) == (404, [])
