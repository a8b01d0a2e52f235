"""Training of a linear decoder of patches: labels, crops, what is frozen, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from crate_interp.cli import main
from crate_interp.data import open_ade20k, open_labelled_scenes
from crate_interp.errors import InputError
from crate_interp.evaluation import semantic_score, total_confusion
from crate_interp.models.patch_head import PatchHead
from crate_interp.training import Recipe, train
from crate_interp.training.batches import batches_of, seed_generators
from crate_interp.training.objectives.segmentation import Segmentation
from crate_interp.weights import load_backbone
from tests.training.conftest import TINY


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Six scenes as ADE20K has them: `images/SPLIT` and `annotations/SPLIT`, 0 for void."""
    root = tmp_path_factory.mktemp("ade")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRATE_INTERP_DATA", str(root / "own"))
        labelled = open_labelled_scenes("val", 6)
    for number, record in enumerate(labelled.images.records):
        split = "training" if number < 4 else "validation"
        for name in ("images", "annotations"):
            (root / name / split).mkdir(parents=True, exist_ok=True)
        Image.open(record.path).save(root / "images" / split / f"{number}.png")
        labels = labelled.labels_of(record, record.hw) + np.uint8(1)
        labels[:20] = 0
        Image.fromarray(labels).save(root / "annotations" / split / f"{number}.png")
    names = "\n".join(f"{n}\t0\t0\t0\t{name}" for n, name in enumerate(labelled.classes))
    rest = "\n".join(f"{n}\t0\t0\t0\tclass {n}" for n in range(len(labelled.classes), 150))
    (root / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{names}\n{rest}\n")
    return root


@pytest.fixture
def recipe_of(scenes):
    """Make a recipe of seconds."""

    def made(**changes):
        keys = {
            "model": "crate_alpha_demo",
            "model_args": TINY,
            "task": "segmentation",
            "data": str(scenes),
            "validation_split": "validation",
            "image_size": 48,
            "batch_size": 4,
            "steps": 30,
            "warmup_steps": 2,
            "learning_rate": 3e-3,
            "workers": 0,
            "log_every": 1,
        }
        return Recipe(**{**keys, **changes})

    return made


def test_what_is_trained_is_scored_on_scenes_in_ade20ks_layout(recipe_of, scenes, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    result = train(recipe_of(crop_area=None), tmp_path / "run")
    model, place = tmp_path / "run/model.safetensors", tmp_path / "scored"
    command = ["benchmark", "semantic", str(scenes), "--method", "head", "--model", str(model)]
    options = ["--split", "validation", "--workers", "0", "--precision", "float32"]
    assert main([*command, *options, "--output", str(place)]) == 0
    assert "validation, head, %" in capsys.readouterr().out
    assert main(["compare", str(place), "--output", str(tmp_path / "table.csv")]) == 0
    cells = (tmp_path / "table.csv").read_text().splitlines()
    scored = dict(zip(*(line.split(",") for line in cells), strict=True))
    # The same by hand: the head on each patch, nearest-neighbour, against the labels.
    backbone, labelled = load_backbone(model).eval(), open_ade20k(scenes)
    pairs = []
    for record in labelled.images.records:
        rgb = record.read()
        small = Image.fromarray(rgb).resize((48, 48), Image.Resampling.BILINEAR)
        pixels = torch.tensor(np.asarray(small)).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(backbone.pretrained_cfg[key]) for key in ("mean", "std"))
        pixels = (pixels - mean[:, None, None]) / std[:, None, None]
        with torch.inference_mode():
            grid = PatchHead(backbone)(pixels).argmax(1)[0].numpy()
        rows = (np.arange(rgb.shape[0]) * grid.shape[0]) // rgb.shape[0]
        columns = (np.arange(rgb.shape[1]) * grid.shape[1]) // rgb.shape[1]
        labels = labelled.labels_of(record, rgb.shape[:2])
        counted = np.stack([grid[rows][:, columns], labels])[:, labels != 255]
        kinds, counts = np.unique(counted, axis=1, return_counts=True)
        pairs.append({"pairs": [(*kind, n) for kind, n in zip(kinds.T, counts, strict=True)]})
    score = semantic_score(total_confusion(pairs, 150, 150))
    assert float(scored["aAcc"]) == pytest.approx(score.pixel_accuracy, abs=0.01)
    assert float(scored["mIoU"]) == pytest.approx(score.mean_iou, abs=0.01)
    assert float(scored["aAcc"]) == pytest.approx(result.accuracy, abs=0.05)
    assert score.pixel_accuracy > 0.3


def test_a_frozen_backbone_stays_as_it_is_and_its_head_learns(recipe_of, tmp_path):
    recipe = recipe_of(frozen=True, steps=3, crop_area=None)
    before = Segmentation(recipe)
    train(recipe, tmp_path)
    trained = load_backbone(tmp_path / "model.safetensors").state_dict()
    seed_generators(recipe.seed)
    drawn = before.build_model().backbone.state_dict()
    changed = {name for name in drawn if not torch.equal(drawn[name], trained[name])}
    assert changed == {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}


def test_image_and_labels_are_cropped_and_mirrored_together(recipe_of):
    recipe = recipe_of(crop_area=[0.3, 1.0])
    objective = Segmentation(recipe)
    yellow = Image.new("RGB", (60, 40))
    labels = np.zeros((40, 60), np.uint8)
    rgb = np.asarray(yellow).copy()
    rgb[10:25, 35:50], labels[10:25, 35:50] = 255, 7
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        example = (Image.fromarray(rgb), Image.fromarray(labels), True)
        pixels, target = objective.view(example, 0, lambda image: image)
        assert pixels.shape == (3, 48, 48)
        bright = pixels[0] > 0
        assert (bright == (target == 7)).float().mean() > 0.93
        seen.add(int((target == 7).sum()))
    assert len(seen) > 4


def test_loss_is_the_mean_over_pixels_with_a_class(recipe_of):
    objective = Segmentation(recipe_of(crop_area=None))
    images, targets = next(
        batches_of(
            objective.recipe, objective.data.training, None, updates=range(1), view=objective.view
        )
    )
    assert (targets == 255).any()
    model = objective.build_model()
    with torch.inference_mode():
        scores = nn.functional.interpolate(model(images), 48, mode="bilinear")
        by_pixel = scores.log_softmax(1).permute(0, 2, 3, 1)[targets != 255]
        reference = -by_pixel.gather(1, targets[targets != 255][:, None]).mean()
        assert objective.loss(model, images, targets) == pytest.approx(reference.item(), rel=1e-5)
        void = torch.full_like(targets, 255)
        assert objective.loss(model, images, void) == 0
        assert objective.scores(model, images, void).tolist() == [0] * len(images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "scenes"}, "data: expected a folder of labelled images"),
        ({"batch_size": 8}, "4 images are fewer than batch_size 8"),
        ({"auto_augment": "rand-m9"}, "auto_augment: expected a recipe of segmentation without"),
        ({"interpolation": "random"}, "interpolation: expected bilinear or bicubic"),
        ({"validation_split": "nothing"}, "nothing"),
    ],
)
def test_wrong_recipes_are_refused(recipe_of, changes, words):
    with pytest.raises(InputError, match=words):
        Segmentation(recipe_of(**changes))


def test_a_folder_without_images_is_refused(recipe_of, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        Segmentation(recipe_of(data=str(tmp_path)))


def test_frozen_is_for_segmentation_alone():
    with pytest.raises(InputError, match="frozen: is for the task segmentation"):
        Recipe(model="crate_demo", steps=1, frozen=True)


def test_a_head_of_other_classes_is_refused(scenes, tmp_path, capsys):
    command = ["benchmark", "semantic", str(scenes), "--method", "head", "--model", "demo"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    assert "expected a head of the 150 classes" in capsys.readouterr().err
    assert main([*command, "--block", "0", "--output", str(tmp_path / "run")]) == 2
    assert "expected no --feature, no --block" in capsys.readouterr().err
