"""The command `maskcut` on pictures drawn here, with a small untrained model."""

import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import crate_interp.visualization as visualization
from crate_interp import MaskCut
from crate_interp.cli import main
from crate_interp.data import decode_mask, is_url
from crate_interp.evaluation import coco_average_precision
from crate_interp.files import write_whole
from crate_interp.hooks import Observer
from crate_interp.runs import number_files
from crate_interp.runs.run_folder import open_run_folder
from crate_interp.segmentation import maskcut_batch
from crate_interp.weights import load_backbone
from tests.pages import without_seconds

MODEL = ["--model", "crate_alpha_demo", "--weights", "random", "--size", "48", "--tau", "0.3"]
FINAL_FILES = ("results.json", "annotations.json")


TINY = '{"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 28}'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Seven pictures of a bright rectangle each, and their COCO annotations."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 8):
        height, width = 40 + 4 * number, 60
        rgb = rng.normal(70, 12, (height, width, 3))
        x, y, w, h = 5 * number, number, 24, 30
        w, h = min(w, width - x), min(h, height - y)
        rgb[y : y + h, x : x + w] += (120, 20 * number, 0)
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        annotations.append(
            {"id": number, "image_id": number, "category_id": 3, "iscrowd": 0, "area": w * h}
            | {"bbox": [x, y, w, h], "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "r"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def run(pictures, output, *more, images=None):
    return main(
        ["maskcut", *MODEL, "--images", str(images or pictures), "--output", str(output)]
        + ["--batch-size", "3", *more]
    )


def annotated(pictures):
    return ["--annotations", str(pictures / "instances.json")]


def read(output, name):
    return json.loads((output / name).read_text())


def test_run_writes_coco_files_that_agree_with_the_library(pictures, tmp_path, capsys):
    output = tmp_path / "run"
    assert run(pictures, output, *annotated(pictures), "--visualize", "3") == 0
    printed = capsys.readouterr().out
    results, summary = read(output, "results.json"), read(output, "summary.json")
    assert results
    assert summary["images"] == 7
    assert summary["masks"] == len(results)
    assert summary["failed"] == []
    assert summary["weights"]["sha256"] is None
    stages = ["read", "forward", "cut", "refine", "encode", "write"]
    assert list(summary["seconds"]["per_image"]) == list(summary["seconds"]["share"]) == stages
    assert min(summary["seconds"]["total"].values()) >= 0
    assert sum(summary["seconds"]["share"].values()) == pytest.approx(1, abs=1e-3)
    assert summary["this_time"]["images"] == 7
    assert summary["this_time"]["images_per_second"] > 0
    assert summary["this_time"]["peak_memory_mb"]["process"] > 50
    assert "AP50" in printed

    torch.manual_seed(0)
    predictor = MaskCut(load_backbone("crate_alpha_demo", pretrained=False), tau=0.3, size=48)
    for number in (1, 7):
        expected = predictor(pictures / f"{number}.png").masks
        found = [r["segmentation"] for r in results if r["image_id"] == number]
        np.testing.assert_array_equal([decode_mask(rle) for rle in found], expected)

    for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
        scores = coco_average_precision(pictures / "instances.json", results, iou_type=iou_type)
        assert summary["average_precision"][kind]["AP"] == scores.AP

    written = COCO(str(output / "annotations.json"))
    assert len(written.anns) == len(results)
    assert all(a["area"] == decode_mask(a["segmentation"]).sum() for a in written.anns.values())
    names = {file.name for file in (output / "images").iterdir()}
    assert names == {"1.png", "2.png", "3.png", "sheet.png", "sheet.pdf"}


def test_the_sheet_names_model_set_and_score(pictures, tmp_path, monkeypatch):
    titles, draw = [], visualization.overlay_sheet
    monkeypatch.setattr(
        visualization,
        "overlay_sheet",
        lambda images, captions, title, **more: (
            titles.append(title) or draw(images, captions, title, **more)
        ),
    )
    output = tmp_path / "run"
    assert run(pictures, output, *annotated(pictures), "--visualize", "1") == 0
    score = 100 * read(output, "summary.json")["average_precision"]["mask"]["AP50"]
    (title,) = titles
    assert title.startswith("MaskCut, crate_alpha_demo (untrained) on ")
    assert f": mask AP50 {score:.1f}, AP " in title


def test_run_without_annotations_has_results_but_no_table(pictures, tmp_path, capsys):
    output = tmp_path / "run"
    one = [pictures / "2.png"]
    assert run(pictures, output, "--visualize", "0", images=one[0]) == 0
    assert read(output, "summary.json")["average_precision"] == {}
    assert "AP" not in capsys.readouterr().out
    assert not (output / "images").exists()


def test_overlays_of_one_name_are_kept_apart(pictures, tmp_path):
    for target in ("a.png", "a.jpg", "sheet.png", "b.png"):
        Image.open(pictures / "1.png").save(tmp_path / target)
    output = tmp_path / "run"
    assert run(tmp_path, output) == 0
    drawn = {path.name for path in (output / "images").iterdir()}
    sheet = {"sheet.png", "sheet.pdf"}
    assert drawn == {"a.png.png", "a.jpg.png", "b.png", "sheet.png.png"} | sheet


def test_boxes_are_scored_alone_where_the_annotations_have_no_masks(pictures, tmp_path, capsys):
    content = json.loads((pictures / "instances.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    output = tmp_path / "run"
    assert run(pictures, output, "--annotations", str(boxes)) == 0
    assert set(read(output, "summary.json")["average_precision"]) == {"box"}
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("box")]
    assert main(["evaluate", str(output / "results.json"), "--annotations", str(boxes)]) == 0
    printed = capsys.readouterr().out
    assert table[0] in printed
    assert "boxes only: the ground truth carries no masks" in printed


def test_annotations_that_cannot_be_scored_are_refused_at_the_start(pictures, tmp_path, capsys):
    content = json.loads((pictures / "instances.json").read_text())
    del content["annotations"][1]["segmentation"]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    assert run(pictures, tmp_path / "run", "--annotations", str(wrong)) == 2
    assert "annotations[1].segmentation" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_is_an_error(pictures, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(pictures, tmp_path / "file" / "run") == 2
    assert "a run cannot be written here: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("batch_size", ["1", "3", "100", "auto"])
def test_batch_size_and_workers_do_not_change_the_results(
    pictures, whole, tmp_path, batch_size, workers
):
    output, options = tmp_path / "run", ["--batch-size", batch_size, "--workers", workers]
    assert run(pictures, output, *options, *annotated(pictures), "--visualize", "0") == 0
    for name in FINAL_FILES:
        assert (output / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A run that nothing has stopped."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run(pictures, output, *annotated(pictures), "--workers", "0", "--visualize", "0") == 0
    return output


def test_tiny_pictures_and_more_masks_than_the_grid_has_room_for(tmp_path):
    for number, size in enumerate([(1, 1), (2, 300), (5, 7), (4, 4)]):
        Image.effect_noise(size, 99).convert("RGB").save(tmp_path / f"{number}.png")
    output = tmp_path / "run"
    options = ["--size", "12", "--max-masks", "50", "--workers", "0"]
    assert run(tmp_path, output, *options) == 1
    summary = read(output, "summary.json")
    assert summary["images"] == 2
    assert [entry["reason"] for entry in summary["failed"]] == [
        f"{tmp_path / '0.png'}: 1 x 1 pixels (height, width) are smaller than a patch of 4 x 4",
        f"{tmp_path / '1.png'}: 300 x 2 pixels (height, width) are smaller than a patch of 4 x 4",
    ]
    sizes = {r["image_id"]: r["segmentation"]["size"] for r in read(output, "results.json")}
    assert sizes
    assert all(size == {3: [7, 5], 4: [4, 4]}[number] for number, size in sizes.items())


def test_folders_with_equal_names_are_one_set(pictures, tmp_path, caplog):
    for name in ("one/a.png", "two/a.png", "two/b.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes((pictures / "1.png").read_bytes())
    folders = [str(tmp_path / "set" / name) for name in ("one", "two")]
    names = ["one/a.png", "two/a.png", "two/b.png"]
    options = ["--workers", "0", "--output"]
    for given in ([*folders], [str(tmp_path / "set"), "--recursive"]):
        output = tmp_path / f"run{len(given)}{given[-1][-1]}"
        assert main(["maskcut", *MODEL, "--images", *given, *options, str(output)]) == 0
        assert [image["file_name"] for image in read(output, "annotations.json")["images"]] == names
        journal = (output / "journal.jsonl").read_text()
        assert [name for name in names if f'"{name}"' in journal] == names
        assert {path.stem for path in (output / "images").glob("*.png")} == {
            *("one-a.png", "two-a.png", "b", "sheet")
        }
        again = output.with_name(f"{output.name}-again")
        output.rename(again)
        assert main(["maskcut", *MODEL, "--images", *given, *options, str(again)]) == 0


def test_a_picture_without_a_mask_is_named_with_the_reason(pictures, tmp_path, monkeypatch, caplog):
    Image.new("RGB", (60, 44), "red").save(tmp_path / "red.png")
    assert run(tmp_path, tmp_path / "run", "--workers", "0") == 0
    assert f"{tmp_path / 'red.png'}: constant image: all pairs of patches are alike" in caplog.text
    monkeypatch.setattr(
        "crate_interp.segmentation.refinement._refine",
        lambda image, masks, *_: (masks, np.zeros(len(masks), bool)),
    )
    one = pictures / "1.png"
    assert run(pictures, tmp_path / "crf", "--workers", "0", "--refine", "crf", images=one) == 0
    assert f"{one}: refinement by crf drops all masks" in caplog.text


# Patches the running process so that it is stopped at a chosen point of its work.
KILLED = """
import os, resource, signal, sys
from crate_interp.cli import main
from crate_interp.runs.journal_file import JournalFile
from crate_interp.runs.run_folder import RunFolder
point, count = sys.argv[1], int(sys.argv[2])
append, write_file = JournalFile.append, RunFolder.write_file
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def counted_append(self, entry):
    global count
    count -= 1
    if point == "append" and count < 0: kill()
    if point == "interrupt" and count < 0: os.killpg(0, signal.SIGINT)  # as Ctrl-C does
    if point == "full" and count < 0:
        size = self._path.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if point == "line" and count < 0:
        with self._path.open("a") as file: file.write('{"image_id": 9, "res')
        kill()
    append(self, entry)
def counted_write(self, name, content):
    if point == name: kill()
    write_file(self, name, content)
JournalFile.append = counted_append
RunFolder.write_file = counted_write
sys.exit(main(sys.argv[3:]))
"""


def test_a_killed_run_goes_on_to_byte_equal_files(pictures, whole, tmp_path):
    arguments = ["maskcut", *MODEL, "--images", str(pictures), *annotated(pictures)]
    arguments += ["--batch-size", "3", "--visualize", "0", "--workers", "0"]
    broken = tmp_path / "broken"
    journal = broken / "journal.jsonl"
    points = [("append", 0), ("append", 2), ("line", 2), ("annotations.json", 99)]
    for (point, count), lines in zip(points, (0, 2, 4, 7), strict=True):
        command = [sys.executable, "-c", KILLED, point, str(count), *arguments]
        done = subprocess.run(
            [*command, "--output", str(broken)],
            check=False,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert (journal.read_text().count("\n") if journal.exists() else 0) == lines
    assert main([*arguments, "--output", str(broken)]) == 0
    for name in FINAL_FILES:
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    pages = [(folder / "report.html").read_bytes() for folder in (broken, whole)]
    assert without_seconds(pages[0]) == without_seconds(pages[1])


@pytest.mark.skipif(sys.platform == "win32", reason="has neither Ctrl-C to groups nor limits")
@pytest.mark.parametrize(
    ("point", "code", "message"),
    [
        ("interrupt", 130, "interrupted; the same command goes on from here"),
        ("full", 2, "journal.jsonl: cannot be written: File too large; once there is room, the "),
    ],
)
def test_a_stopped_run_says_so_in_one_line_and_goes_on(
    pictures, whole, tmp_path, point, code, message
):
    output = tmp_path / "run"
    arguments = ["maskcut", *MODEL, "--images", str(pictures), *annotated(pictures)]
    arguments += ["--batch-size", "3", "--visualize", "0", "--workers", "1"]
    command = [sys.executable, "-c", KILLED, point, "2", *arguments, "--output", str(output)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("\rmaskcut:")]
    assert [line for line in lines if line and "maskcut:" not in line] == [lines[-1]], done.stderr
    assert message in lines[-1]
    assert read(output, "settings.json")
    assert main([*arguments, "--output", str(output)]) == 0
    for name in FINAL_FILES:
        assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_a_disk_that_is_full_for_the_final_files_is_named(
    pictures, whole, tmp_path, capsys, monkeypatch
):
    output, options = tmp_path / "run", [*annotated(pictures), "--visualize", "0"]

    @contextmanager
    def full(path, mode):
        with write_whole(path, mode) as file:
            yield file
            if path.name == "results.json":  # as the system has it: without a name
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(number_files, "write_whole", full)
        assert run(pictures, output, *options) == 2
    message = f"{output / 'results.json'}: cannot be written: No space left on device; once there"
    assert message in capsys.readouterr().err
    assert not (output / "results.json").exists()
    assert run(pictures, output, *options) == 0
    for name in FINAL_FILES:
        assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_a_batch_that_is_cut_together_gives_the_same_files(pictures, whole, tmp_path, monkeypatch):
    """What a GPU does, and the CPU can."""
    batches = []

    def cut(features, *options):
        batches.append(len(features))
        return maskcut_batch(features, *options)

    monkeypatch.setattr("crate_interp.commands.segment._are_cut_together", lambda _: True)
    monkeypatch.setattr("crate_interp.segmentation.maskcut_batch", cut)
    output = tmp_path / "run"
    assert run(pictures, output, *annotated(pictures), "--visualize", "0") == 0
    assert batches == [3, 3, 1]
    assert read(output, "summary.json")["seconds"]["total"]["cut"] > 0
    for name in FINAL_FILES:
        assert (output / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_whose_features_are_not_finite_fails_alone(
    pictures, whole, tmp_path, monkeypatch, workers
):
    """Half precision may overflow."""
    each = Observer.each

    def spoilt(observer, images, sites, blocks):
        recorded = each(observer, images, sites, blocks)
        if len(images) == 3:
            of_second = {key: tensor.clone() for key, tensor in recorded[1].items()}
            for tensor in of_second.values():
                tensor[:, recorded[1].num_prefix_tokens + 5] = np.nan
            recorded[1] = replace(recorded[1], tensors=of_second)
        return recorded

    monkeypatch.setattr(Observer, "each", spoilt)
    output = tmp_path / "run"
    assert run(pictures, output, *annotated(pictures), "--workers", workers) == 1
    failed = {
        entry["file_name"]: entry["reason"] for entry in read(output, "summary.json")["failed"]
    }
    assert list(failed) == ["2.png", "5.png"]
    assert "found NaN or infinity in 1 of 144 patches, the first being patch 5" in failed["2.png"]
    expected = [r for r in read(whole, "results.json") if r["image_id"] not in (2, 5)]
    assert read(output, "results.json") == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_masks(pictures, whole, tmp_path):
    output = tmp_path / "run"
    assert run(pictures, output, "--device", "cuda", "--precision", "float32") == 0
    masks, expected = (
        [(r["image_id"], r["segmentation"]) for r in read(folder, "results.json")]
        for folder in (output, whole)
    )
    assert masks == expected


def test_a_finished_run_is_not_done_again(pictures, tmp_path, monkeypatch):
    output = tmp_path / "run"
    assert run(pictures, output, "--visualize", "0") == 0
    before = (output / "results.json").read_bytes()
    monkeypatch.setattr(Observer, "each", lambda *_: pytest.fail("ran the model again"))
    assert run(pictures, output, "--visualize", "0") == 0
    assert (output / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--tau", "0.31"], "tau was 0.3, now 0.31"),
        (["--max-masks", "2"], "max_masks was 3, now 2"),
        (["--limit", "2"], "limit was None, now 2"),
        (["--block", "0"], "block was -1, now 0"),
    ],
)
def test_a_run_folder_of_other_settings_is_refused(pictures, tmp_path, option, message, capsys):
    output = tmp_path / "run"
    assert run(pictures, output, "--visualize", "0") == 0
    assert run(pictures, output, *option) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(pictures, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert run(pictures, tmp_path) == 2
    assert "found thesis.tex" in capsys.readouterr().err


def test_two_runs_do_not_write_one_folder(pictures, tmp_path, capsys):
    output = tmp_path / "run"
    with open_run_folder(output, {}):
        assert run(pictures, output) == 2
    assert "another process" in capsys.readouterr().err


@pytest.fixture
def with_bad_ones(pictures, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in (1, 2, 3, 4):
        (folder / f"{number}.png").write_bytes((pictures / f"{number}.png").read_bytes())
    (folder / "2.png").write_bytes((pictures / "2.png").read_bytes()[:200])
    Image.new("RGB", (9, 9)).save(folder / "3.png")
    return folder


def test_unreadable_images_are_named_and_the_rest_is_done(
    pictures, with_bad_ones, tmp_path, capsys
):
    output = tmp_path / "run"
    assert run(pictures, output, *annotated(pictures), images=with_bad_ones) == 1
    summary = read(output, "summary.json")
    failed = {entry["file_name"]: entry["reason"] for entry in summary["failed"]}
    assert set(failed) == {"2.png", "3.png"}
    assert "the annotations say (52, 60)" in failed["3.png"]
    assert "failed: " in capsys.readouterr().err
    assert {r["image_id"] for r in read(output, "results.json")} <= {1, 4}
    assert summary["images"] == 2

    # Mended, the same command does what is left.
    for name in failed:
        (with_bad_ones / name).write_bytes((pictures / name).read_bytes())
    assert run(pictures, output, *annotated(pictures), images=with_bad_ones) == 0
    assert read(output, "summary.json")["images"] == 4


def test_strict_stops_at_the_first_unreadable_image(pictures, with_bad_ones, tmp_path, capsys):
    assert run(pictures, tmp_path / "run", "--strict", images=with_bad_ones) == 2
    assert "2.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "50"], "size 50: expected a multiple of the patch size 4"),
        (["--block", "17"], "block 17 is out of range"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--stride", "5"], "stride 5"),
    ],
)
def test_wrong_options_leave_no_run_behind(pictures, tmp_path, more, message, capsys):
    assert run(pictures, tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err


def test_an_empty_folder_is_an_error(pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(pictures, tmp_path / "run", images=tmp_path / "empty") == 2
    assert "empty" in capsys.readouterr().err


def test_missing_coco_names_the_command_that_fetches_it(tmp_path, capsys):
    arguments = ["maskcut", *MODEL, "--coco", "val2017", "--coco-root", str(tmp_path)]
    assert main(arguments) == 2
    assert "crate-interp download coco-val2017" in capsys.readouterr().err


def test_real_coco_pictures_give_a_table(shared_data, tmp_path, capsys):
    arguments = ["maskcut", *MODEL, "--coco", "val2017", "--coco-root", str(shared_data / "coco")]
    assert main([*arguments, "--limit", "6", "--output", str(tmp_path / "run")]) == 0
    assert "AP50" in capsys.readouterr().out
    assert read(tmp_path / "run", "summary.json")["images"] == 6


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        ("vit_small_patch14_dinov2", True),
        ("vit_small_patch14_reg4_dinov2", False),
        ("crate_alpha_demo", False),
    ],
)
def test_tokens_of_high_norm_are_warned_of_where_there_are_any(
    pictures, tmp_path, caplog, model, warned
):
    """DINOv2's registers take them up."""
    sizes = "{}" if model == "crate_alpha_demo" else TINY
    options = ["--model", model, "--weights", "random", "--model-args", sizes, "--size", "56"]
    files = ["--images", str(pictures), "--limit", "1", "--output", str(tmp_path / "run")]
    assert main(["maskcut", *options, *files]) == 0
    assert ("tokens of high norm" in caplog.text) == warned


def test_images_give_the_same_masks_wherever_they_are_kept(pictures, tmp_path):
    pytest.importorskip("fsspec", reason="reads URLs")
    names = [f"{number}.png" for number in range(1, 8)]
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        for name in names:
            tar.add(pictures / name, name)
    (tmp_path / "list.txt").write_text("\n".join(str(pictures / name) for name in names))
    options = ["--visualize", "1", *annotated(pictures)]
    assert run(pictures, tmp_path / "here", *options, "--workers", "0") == 0
    drawn = (tmp_path / "here" / "images" / "1.png").read_bytes()
    for place, workers in (
        (tmp_path / "packed.tar", "1"),
        (tmp_path / "list.txt", "0"),
        (f"file://{pictures}", "0"),
        (f"file://{tmp_path}/packed.tar", "1"),
    ):
        there = tmp_path / f"there-{workers}-{Path(place).name}-{is_url(str(place))}"
        assert run(pictures, there, *options, "--workers", workers, images=place) == 0
        for name in FINAL_FILES:
            content = (there / name).read_text()
            renamed = content.replace(f"of {Path(place).name}", f"of {pictures.name}")
            assert renamed == (tmp_path / "here" / name).read_text()
        assert (there / "images" / "1.png").read_bytes() == drawn
