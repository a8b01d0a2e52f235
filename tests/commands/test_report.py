"""The page of a run: its numbers are those of the summary, its pictures those of the images."""

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp.cli import main
from crate_interp.commands import published, segment
from crate_interp.commands.benchmark import saliency, semantic, voc2012
from crate_interp.data import decode_mask
from crate_interp.errors import InputError
from crate_interp.evaluation import best_overlaps, classes_of_clusters, image_accuracy, mean_iou
from crate_interp.runs import Conclusion, ImageFilesCommand, Reading

OVER_CLASSES = "mean_iou_over_classes"
MODEL = ["--model", "demo", "--size", "24", "--workers", "0", "--format", "png"]


def hostile_name(number):
    return f'<script>alert({number})<!-- "it\'s" & {number}.png'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten pictures of a rectangle or two each under names that are markup, and annotations."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 11):
        rgb = rng.integers(0, 60, (30, 40, 3), np.uint8)
        entry = {"id": number, "file_name": hostile_name(number), "height": 30, "width": 40}
        for _ in range(number % 3):
            x, y, w, h = *rng.integers(0, 12, 2).tolist(), *rng.integers(10, 18, 2).tolist()
            rgb[y : y + h, x : x + w] = rng.integers(150, 255, 3)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                | {"area": w * h, "bbox": [x, y, w, h]}
                | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            )
        Image.fromarray(rgb).save(folder / entry["file_name"])
        images.append(entry)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run(pictures, output, *annotated(pictures)) == 0
    return output


def annotated(pictures):
    return ["--annotations", str(pictures / "instances.json")]


def run(pictures, output, *more):
    arguments = ["--images", str(pictures), "--output", str(output), "--visualize", "0"]
    return main(["maskcut", *MODEL, *arguments, *more])


def section(page, name):
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return found


def cells(text):
    rows = re.findall(r"<tr.*?>(.*?)</tr>", text)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", r)] for r in rows]


def counts(chart):
    return [int(number) for number in re.findall(r"<title>[^<]*: (\d+)</title>", chart)]


def test_the_page_has_the_numbers_of_the_summary(pictures, whole):
    page = (whole / "report.html").read_text()
    summary = json.loads((whole / "summary.json").read_text())
    header, *rows = cells(section(page, "scores"))
    for name, *values in rows:
        scores = summary["average_precision"][name]
        assert values == [f"{100 * v:.1f}" if v >= 0 else "-" for v in scores.values()]
    assert [row[0] for row in rows] == ["box", "mask"]
    assert header == [
        *("", "AP", "AP50", "AP75", "small", "medium", "large", "AR1", "AR10", "AR100"),
        *("AR small", "AR medium", "AR large"),
    ]
    facts = dict(cells(section(page, "run")))
    assert facts["model"] == "crate_alpha_demo"
    assert facts["weights sha256"] == summary["weights"]["sha256"]
    assert facts["images count"] == "10"
    assert f"torch {summary['versions']['torch']}" in facts["versions"]
    assert facts["tau"] == str(summary["settings"]["tau"])
    for stage, seconds in summary["seconds"]["per_image"].items():
        assert f"<td>{stage}</td>" in section(page, "seconds")
        assert f"{seconds:.3f} s" in section(page, "seconds")
    assert 'id="failed"' not in page


def test_the_page_counts_masks_and_orders_images_by_iou(pictures, whole):
    page = (whole / "report.html").read_text()
    results = json.loads((whole / "results.json").read_text())
    truth = json.loads((pictures / "instances.json").read_text())
    by_image = {}
    for number in range(1, 11):
        masks = [decode_mask(r["segmentation"]) for r in results if r["image_id"] == number]
        objects = [a["bbox"] for a in truth["annotations"] if a["image_id"] == number]
        drawn = np.zeros((len(objects), 30, 40), bool)
        for mask, (x, y, w, h) in zip(drawn, objects, strict=True):
            mask[y : y + h, x : x + w] = True
        if objects:
            stacked = np.array(masks, bool).reshape(-1, 30, 40)
            by_image[number] = mean_iou([best_overlaps(stacked, drawn)]).mean_iou
    assert len(by_image) == 7
    order = sorted(by_image, key=lambda number: (-by_image[number], number))
    for name, expected in (("best", order[:4]), ("worst", order[::-1][:3])):
        titles = re.findall(r"<h3>(.*?) <span>(.*?)</span></h3>", section(page, name))
        assert [(html.unescape(title), words) for title, words in titles] == [
            (hostile_name(number), f"IoU {by_image[number]:.2f}") for number in expected
        ]
        assert section(page, name).count("data:image/jpeg") == 3 * len(expected)
        assert section(page, name).count("<figcaption>truth: ") == len(expected)
    charts = section(page, "curves").split("<figure")
    assert sum(counts(charts[-1])) == 7
    of_images, sizes = section(page, "masks").split("<figure")[1:]
    assert (sum(counts(of_images)), sum(counts(sizes))) == (10, len(results))


def test_no_name_of_an_image_is_markup(whole):
    page = (whole / "report.html").read_text()
    assert "<script" not in page
    assert "<!-- " not in page
    assert html.escape(hostile_name(1)) in page


def test_without_ground_truth_the_page_has_what_needs_none(pictures, tmp_path):
    assert run(pictures, tmp_path / "run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    names = re.findall(r'<section id="(.*?)">', page)
    assert names == ["masks", "pictures", "seconds", "run"]
    assert section(page, "pictures").count("data:image/jpeg") == 2 * 6
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ground_truth"] is None


def test_boxes_alone_are_shown_as_boxes(pictures, tmp_path):
    truth = json.loads((pictures / "instances.json").read_text())
    for annotation in truth["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    assert run(pictures, tmp_path / "run", "--annotations", str(tmp_path / "boxes.json")) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert [row[0] for row in cells(section(page, "scores"))] == ["", "box"]
    assert section(page, "best").count("<figcaption>truth: ") == 4


def test_failures_are_listed_with_reasons_and_lost_pictures_are_said(pictures, tmp_path, capsys):
    broken = tmp_path / "pictures"
    broken.mkdir()
    for path in pictures.glob("*.png"):
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / hostile_name(3)).write_bytes(b"no picture")
    assert run(broken, tmp_path / "run", *annotated(pictures)) == 1
    page = (tmp_path / "run" / "report.html").read_text()
    ((name, reason),) = cells(section(page, "failed"))
    assert name == hostile_name(3)
    assert (
        reason == json.loads((tmp_path / "run" / "summary.json").read_text())["failed"][0]["reason"]
    )
    assert "9 images by crate-interp maskcut; 1 failed" in page

    assert run(broken, tmp_path / "run", *annotated(pictures)) == 1
    for path in broken.glob("*.png"):
        path.write_bytes(b"no picture any more")
    assert run(broken, tmp_path / "run", *annotated(pictures)) == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image" not in page
    assert "no picture" not in page
    assert len(re.findall(r"<span>IoU [\d.]+; .*?</span>", page)) == 7


def test_many_failures_are_bounded(pictures, tmp_path):
    many = tmp_path / "pictures"
    many.mkdir()
    (many / "good.png").write_bytes((pictures / hostile_name(1)).read_bytes())
    for number in range(103):
        (many / f"{number}.png").write_bytes(b"no picture")
    assert run(many, tmp_path / "run") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert len(cells(section(page, "failed"))) == 100
    assert "and 3 more" in section(page, "failed")


def test_a_run_of_which_every_image_failed_has_a_page(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"no picture")
    assert run(tmp_path / "pictures", tmp_path / "run") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "0 images by crate-interp maskcut; 1 failed" in page
    assert re.findall(r'<section id="(.*?)">', page) == ["masks", "failed", "run"]


def test_published_numbers_stand_below_the_measured(pictures, tmp_path, monkeypatch):
    known = {"mask AP": 2.4, "box AP50": 5.0}, 'A <b>"person"</b>'
    monkeypatch.setattr(segment, "published_maskcut", lambda *_: known)
    assert run(pictures, tmp_path / "run", *annotated(pictures)) == 0
    rows = cells(section((tmp_path / "run" / "report.html").read_text(), "scores"))
    assert rows[-2][:3] == ['box, published (A <b>"person"</b>)', "", "5.0"]
    assert rows[-1][:3] == ['mask, published (A <b>"person"</b>)', "2.4", ""]
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["published"]
    assert found == {"mask AP": 0.024, "box AP50": 0.05, "source": known[1]}
    other = ["--images", str(pictures), "--output", str(tmp_path / "other"), "--visualize", "0"]
    assert main(["segment", "--method", "tokencut", *MODEL, *other, *annotated(pictures)]) == 0
    assert json.loads((tmp_path / "other" / "summary.json").read_text())["published"] is None


def test_published_maskcut_belongs_to_whole_val2017():
    dino = "vit_small_patch8_224.dino"
    values, source = published.published_maskcut(dino, "val2017", 5000)
    assert (values["box AP50"], values["mask AP"]) == (5.0, 1.7)
    assert "2308.16271" in source
    assert published.published_maskcut(dino, "val2017", 4999) is None
    assert published.published_maskcut(dino, "photos", 5000) is None
    assert published.published_maskcut(None, "val2017", 5000) is None


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Five pictures of a bright rectangle each, with its mask; one has none of it."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(5):
        rgb, mask = rng.integers(0, 60, (30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
        if number:
            rgb[5:20, 5 * number : 5 * number + 15] = rng.integers(150, 255, 3)
            mask[5:20, 5 * number : 5 * number + 15] = 255
        Image.fromarray(rgb).save(root / "images" / hostile_name(number))
        Image.fromarray(mask).save(root / "masks" / hostile_name(number))
    return root


def benchmark(name, output, *arguments):
    assert main(["benchmark", name, *map(str, arguments), *MODEL, "--output", str(output)]) == 0
    entries = (output / "journal.jsonl").read_text().splitlines()
    page, summary = (output / "report.html").read_text(), output / "summary.json"
    assert "<script" not in page
    return page, json.loads(summary.read_text()), [json.loads(line)["entry"] for line in entries]


def shown_scores(page):
    return {
        name: [
            float(words.split()[-1])
            for words in re.findall(r"<h3>.*?<span>(.*?)</span></h3>", section(page, name))
        ]
        for name in ("best", "worst")
    }


def test_voc2012_shows_its_table_and_the_images_of_its_best_heads(labelled, tmp_path):
    page, summary, entries = benchmark("voc2012", tmp_path / "run", labelled)
    assert cells(section(page, "scores")) == [
        ["mIoU, %", "over images", "over classes"],
        *(
            [name, *(f"{100 * summary[key][name]:.1f}" for key in ("mean_iou", OVER_CLASSES))]
            for name in summary["mean_iou"]
        ),
    ]
    best = sorted(np.mean(np.max(e["heads"], axis=0)) for e in entries if e["classes"])[::-1]
    assert len(best) == 4
    shown = shown_scores(page)
    np.testing.assert_allclose(shown["best"] + shown["worst"][::-1], best, atol=0.0051)
    assert np.mean(best) == pytest.approx(summary["mean_iou"]["best head"])
    assert section(page, "best").count("data:image/jpeg") == 2 * 5
    assert "<figcaption>principal component</figcaption>" in section(page, "best")


def test_voc2012_shows_the_truth_alone_where_no_masks_are_kept(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(voc2012, "MOST_EXAMPLES", 0)
    page, *_ = benchmark("voc2012", tmp_path / "run", labelled, "--pictures", "0")
    assert section(page, "best").count("data:image/jpeg") == 2 * 2
    assert "<figcaption>truth</figcaption>" in section(page, "best")


def test_saliency_shows_the_images_of_its_first_method(labelled, tmp_path, monkeypatch):
    known = published.PublishedSaliency(80.3, 71.2, 91.8)
    monkeypatch.setattr(saliency, "published_saliency", lambda *_: known)
    folders = labelled / "images", labelled / "masks"
    page, summary, entries = benchmark("saliency", tmp_path / "run", *folders)
    *rows, last = cells(section(page, "scores"))[1:]
    assert last == ["TokenCut, published", "80.3", "71.2", "91.8"]
    for name, *values in rows:
        scores = summary["scores"][name]
        assert values == [f"{100 * scores[key]:.1f}" for key in ("max_f", "iou", "accuracy")]
    ious = sorted((e["methods"]["TokenCut"]["iou"] for e in entries), reverse=True)
    shown = shown_scores(page)
    np.testing.assert_allclose(shown["best"] + shown["worst"][::-1], ious, atol=0.0051)
    assert summary["published"]["iou"] == pytest.approx(0.712)


@pytest.mark.parametrize("method", ["kmeans", "linear"])
def test_semantic_shows_the_pixel_accuracy_of_images(labelled, tmp_path, method, monkeypatch):
    monkeypatch.setattr(semantic.Semantic, "check", lambda _: None)  # it learns what it scores
    page, summary, _ = benchmark(
        "semantic", tmp_path / "run", labelled, "--method", method, "--patches", 20
    )
    values = cells(section(page, "scores"))[1][1:]
    numbers = [summary[key] for key in ("mean_iou", "mean_accuracy", "pixel_accuracy")]
    assert values == [f"{100 * number:.1f}" for number in numbers]
    shown = shown_scores(page)
    # The images are of one size, so that their mean is that of all pixels.
    mean = np.mean(shown["best"] + shown["worst"])
    assert mean == pytest.approx(summary["pixel_accuracy"], abs=0.0051)


def test_clusters_without_a_class_are_right_nowhere():
    confusion = np.array([[5, 1], [0, 9], [3, 3]])
    assert classes_of_clusters(confusion).tolist() == [0, 1, -1]
    image = {"pairs": [(0, 0, 4), (1, 0, 2), (2, 1, 2)]}
    assert image_accuracy(image, np.array([0, 1, -1])) == 0.5
    assert image_accuracy({"pairs": []}, np.array([0])) is None
    with pytest.raises(InputError, match="expected counts"):
        classes_of_clusters(np.zeros((0, 2), int))


@dataclass(frozen=True, kw_only=True)
class Brightness(ImageFilesCommand):
    """A command of another package, which says nothing of pages."""

    group = "other"
    run_folder = True
    output: Path

    def reading(self, run):
        return Reading(["subspace"])

    def measure(self, run, image, output):
        return {"brightness": float(image.rgb.mean())}

    def conclude(self, run):
        values = [entry["brightness"] for entry in run.entries]
        names = {"a <b>": "c & d", "none": None}
        return Conclusion(results={"mean": float(np.mean(values)), "inner": names})


def test_a_new_command_has_a_page_for_nothing(labelled, tmp_path):
    command = Brightness(
        model="demo", size=24, workers=0, images=[labelled / "images"], output=tmp_path / "run"
    )
    assert command.run() == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.findall(r'<section id="(.*?)">', page) == ["results", "seconds", "run"]
    mean = json.loads((tmp_path / "run" / "summary.json").read_text())["mean"]
    rows = cells(section(page, "results"))[1:]
    assert rows == [["mean", f"{mean:.4g}"], ["inner: a <b>", "c & d"]]
    assert "5 images by crate-interp brightness" in page
