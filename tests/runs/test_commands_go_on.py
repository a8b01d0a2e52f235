"""Every command over images: stopped anywhere and given again, it writes the same bytes."""

import json
from operator import itemgetter

import pytest

from crate_interp.cli import main
from crate_interp.commands import find_commands
from crate_interp.runs.command import ImageCommand
from crate_interp.runs.fold import Fold
from crate_interp.runs.journal_file import JournalFile
from tests.pages import without_seconds

# What each command is given besides the pictures and the output; `{}` stands for the pictures,
# `{data}` for the folder of them and of masks of what is on them, and `{classes}` for other ones in
# folders of classes.
COMMANDS = {
    "attention": [
        *("{}", "--model", "demo"),
        *("--figure", "heads", "semantics", "layers", "rollout", "curves"),
    ],
    "atlas": ["{}", "--model", "demo", "--sheet", "0"],
    "pca": ["{}", "--model", "demo"],
    "features": ["{}", "--model", "demo"],
    "ablate": ["{}", "--model", "demo", "--target", "atoms", "--measured", "3"],
    "attribute": ["{}", "--model", "demo", "--steps", "2"],
    "tokens": ["{}", "--model", "demo_crate"],
    "layers": ["{}", "--model", "demo,demo_vit"],
    "maskcut": ["--images", "{}", "--model", "demo", "--visualize", "2"],
    "segment": ["--images", "{}", "--model", "demo_vit", "--method", "attention"],
    "side-by-side": ["{}", "--model", "demo,demo_vit", "--untrained"],
    "benchmark voc2012": ["{data}", "--model", "demo", "--pictures", "3"],
    "benchmark semantic": ["{data}", "--model", "demo", "--patches", "20"],
    "benchmark classification": ["{classes}", "{}", "--model", "demo", "--regularization", "1"],
    "benchmark saliency": ["{}", "{data}/masks", "--model", "demo", "--pictures", "3"],
}
OPTIONS = ["--size", "24", "--workers", "0", "--batch-size", "2", "--format", "png"]
OF_TIME = ("seconds", "this_time")  # keys of summaries


def command(name, pictures, output):
    if name == "attribute":
        pytest.importorskip("captum", reason="needs the extra attribution")
    places = {"data": pictures.parent, "classes": pictures.parents[1] / "classes"}
    arguments = [argument.format(pictures, **places) for argument in COMMANDS[name]]
    file = "features.npz" if name == "features" else "figure.png"
    place = output / file if find_commands()[name].load().output_is_file else output
    return [*name.split(), *arguments, *OPTIONS, "--output", str(place)]


def files_of(folder):
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(folder)), path.read_bytes()
        if name == "summary.json":
            summary = json.loads(content)
            content = {key: value for key, value in summary.items() if key not in OF_TIME}
        if name == "report.html":
            content = without_seconds(content)
        if name not in (".lock", "journal.jsonl"):
            files[name] = content
    return files


def test_every_command_over_images_is_tried():
    over_images = set()
    for name, entry in find_commands().items():
        if issubclass(entry.load(), ImageCommand):
            over_images.add(name)
    assert over_images == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stopped_command_goes_on_to_the_same_files(name, pictures, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(command(name, pictures, whole)) == 0
    entries = []

    def stopping(keep, image_id_of):
        def stop(kept, entry, *measured):
            if len(entries) in (1, 4):
                entries.append("stopped")
                raise KeyboardInterrupt
            keep(kept, entry, *measured)
            entries.append(image_id_of(entry))

        return stop

    monkeypatch.setattr(JournalFile, "append", stopping(JournalFile.append, itemgetter("image_id")))
    monkeypatch.setattr(Fold, "add", stopping(Fold.add, int))
    arguments = command(name, pictures, stopped)
    for _ in range(2):
        capsys.readouterr()
        assert main(arguments) == 130
        assert "interrupted; the same command goes on from here" in capsys.readouterr().err
    assert main(arguments) == 0
    done = [image_id for image_id in entries if image_id != "stopped"]
    assert len(done) == len(set(done)) * (len(done) // 5) != 0  # no image is measured twice
    assert files_of(stopped) == files_of(whole)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_image_is_named_and_the_others_are_done(name, pictures, tmp_path, capsys):
    (pictures / "2.png").write_bytes(b"no picture")
    assert main(command(name, pictures, tmp_path / "out")) == 1
    captured = capsys.readouterr()
    assert "2.png" in captured.err
    assert "1 image failed" in captured.out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_folder_is_an_error(name, tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    assert main(command(name, tmp_path / "empty" / "images", tmp_path / "out")) == 2
    assert "expected image files" in capsys.readouterr().err
