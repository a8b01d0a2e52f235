"""What is measured in one pass is what its parts give, put together by hand."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from crate_interp.analysis import coding_rate
from crate_interp.data import ImageSet, open_images, preprocess, read_image, write_scenes
from crate_interp.errors import InputError
from crate_interp.evaluation import coco_average_precision, mask_iou
from crate_interp.evaluation.coco_input import object_masks, prepare_ground_truth
from crate_interp.hooks import any_resolution, record
from crate_interp.segmentation import MaskCut, attention_masks, tokencut
from crate_interp.structures import ImageGeometry
from crate_interp.training.emergence import measure_emergence

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
CRATE, VIT = "crate_alpha_tiny_patch16_224", "vit_tiny_patch16_224"


def make(architecture=CRATE, **arguments):
    torch.manual_seed(0)
    return timm.create_model(architecture, **(SIZES | arguments)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, count=3, seed=3)
    return folder


@pytest.fixture
def images(folder):
    """Three scenes; the last one's objects are crowds, so that it has none."""
    found = open_images([folder / "demo"], folder / "annotations" / "instances_demo.json")
    annotations = [
        {**entry, "iscrowd": int(entry["image_id"] == 3)}
        for entry in found.annotations["annotations"]
    ]
    return replace(found, annotations={**found.annotations, "annotations": annotations})


@pytest.mark.parametrize("architecture", [CRATE, VIT])
def test_emergence_is_its_parts_by_hand(images, architecture):
    model = make(architecture)
    predictor = MaskCut(model, size=64, tau=0.4)
    found = measure_emergence(predictor, images)

    truth = prepare_ground_truth(images.annotations, "segm", class_agnostic=True)
    best = {"mass": [], "entries": []}
    heads = {"mass": [], "entries": []}
    salient, rates, zeros, instances = [], [], [], {}
    site = "subspace" if architecture == CRATE else "key"
    statistics = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    for image in images.records:
        rgb = read_image(image.path)
        pixels = preprocess(rgb, (64, 64), *statistics)[None]
        sites = ["attention", site, *(["codes"] if architecture == CRATE else [])]
        with torch.no_grad(), any_resolution(model), record(model, sites, [0, 1]) as recorder:
            model(pixels)
        seen, geometry = recorder.activations, ImageGeometry(rgb.shape[:2], (64, 64), (8, 8))

        def resize(masks, geometry=geometry):
            masks = masks.reshape(-1, 8, 8).numpy()
            return geometry.input_to_original(geometry.grid_to_input(masks))

        of_image = [a for a in truth["annotations"] if a["image_id"] == image.image_id]
        objects = object_masks(of_image, rgb.shape[:2])
        assert len(objects) == (0 if image.image_id == 3 else len(of_image))
        if len(objects):
            for by in best:
                masks = resize(attention_masks(seen["attention", 1][0, :, 0, 1:], by=by))
                overlaps = mask_iou(masks, objects)
                best[by].append(overlaps.max(axis=0).mean())
                heads[by].append(overlaps.mean(axis=1))
            areas = objects.sum(axis=(1, 2))
            cut = resize(tokencut(seen.patch_features(site, 1)[0], (8, 8)).mask)
            salient.append(mask_iou(cut, objects[areas == areas.max()][:1])[0, 0])
        instances[image.image_id] = predictor(image.path)
        tokens = [seen[site, block][0].reshape(-1, 3, 16).transpose(0, 1) for block in (0, 1)]
        rates.append([float(coding_rate(block).sum()) for block in tokens])
        if architecture == CRATE:
            zeros.append([float((seen["codes", block] == 0).double().mean()) for block in (0, 1)])

    assert sum(map(len, instances.values())) > 0
    for by, score in found.attention.items():
        assert score.images == 2
        assert score.mean_iou["best head"] == pytest.approx(np.mean(best[by]), abs=1e-9)
        assert score.mean_iou["one head"] == pytest.approx(
            np.mean(heads[by], axis=0).max(), abs=1e-9
        )
    assert found.tokencut.mean_iou == pytest.approx(np.mean(salient), abs=1e-9)
    for iou_type, score in (("bbox", found.box), ("segm", found.mask)):
        assert (
            score.AP == coco_average_precision(images.annotations, instances, iou_type=iou_type).AP
        )
    np.testing.assert_allclose(found.coding_rate, np.mean(rates, axis=0), rtol=1e-5)
    if architecture == CRATE:
        np.testing.assert_allclose(found.sparsity, np.mean(zeros, axis=0), rtol=1e-3)
    else:
        assert found.sparsity == ()


def test_numbers_are_flat_and_named(images):
    found = measure_emergence(MaskCut(make(), size=32), images)
    numbers = found.numbers()
    assert list(numbers) == [
        *("attention_miou_mass", "attention_miou_entries"),
        *("attention_one_head_mass", "attention_one_head_entries"),
        *("box_ap", "box_ap50", "mask_ap", "mask_ap50", "tokencut_iou"),
        *("coding_rate_0", "coding_rate_1", "sparsity_0", "sparsity_1"),
    ]
    assert numbers["mask_ap50"] == found.mask.AP50
    assert numbers["attention_one_head_mass"] == found.attention["mass"].mean_iou["one head"]
    assert numbers["attention_miou_entries"] == found.attention["entries"].mean_iou["best head"]


def test_model_without_a_class_token_has_no_attention(images):
    model = make(VIT, class_token=False, global_pool="avg")
    found = measure_emergence(MaskCut(model, size=32), images.limit(1))
    assert found.attention == {}
    assert 0 <= found.tokencut.mean_iou <= 1
    assert "attention_miou_mass" not in found.numbers()


def test_measuring_leaves_random_state_and_model_alone(images):
    model = make().train()
    state = torch.get_rng_state()
    measure_emergence(MaskCut(model, size=32), images.limit(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_objects_are_drawn_from_polygons_and_both_kinds_of_rle():
    square = {"segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]], "iscrowd": 0}
    runs = {"segmentation": {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}, "iscrowd": 0}
    outside = {"segmentation": [[20, 20, 30, 20, 30, 30]], "iscrowd": 0}
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    masks = object_masks([square, runs, outside, {**runs, "iscrowd": 1}], (6, 8))
    assert masks.shape == (2, 6, 8)
    assert (masks == expected).all()
    assert object_masks([], (6, 8)).shape == (0, 6, 8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found: replace(found, annotations=None), "demo: expected images with masks"),
        (lambda found: replace(found, records=found.records[2:]), "found none"),
        (lambda found: replace(found, records=()), "found none"),
        (lambda found: _with(found, {"segmentation": "none"}), "segmentation"),
        (lambda found: _moved(found, 1, hw=(5, 5)), r"\(height, width\), the annotations say"),
        (lambda found: _moved(found, 1, path=found.records[0].path / "x"), "cannot be read"),
    ],
)
def test_images_that_cannot_be_measured_are_refused(images, spoil, message):
    with pytest.raises(InputError, match=message):
        measure_emergence(MaskCut(make(), size=32), spoil(images))


def _with(images: ImageSet, change: dict) -> ImageSet:
    first, *others = images.annotations["annotations"]
    annotations = {**images.annotations, "annotations": [{**first, **change}, *others]}
    return replace(images, annotations=annotations)


def _moved(images: ImageSet, count: int, **change) -> ImageSet:
    records = tuple(replace(record, **change) for record in images.records[:count])
    return replace(images, records=records)
