"""The atlas of atoms against plain loops over the definitions."""

import pickle

import numpy as np
import pytest
import torch

from crate_interp.analysis import Atlas, AtlasBuilder, class_selectivity
from crate_interp.errors import InputError

ATOMS, GRID, STRONGEST = 6, (3, 4), 3


def stream(images=8, levels=5, seed=0):
    """Codes of few levels, so that many are zero and many are equal, and labels of patches."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-2, levels, (images, GRID[0] * GRID[1], ATOMS)) / 4
    codes[:, :, 5] = -1  # never fires
    codes[2:, :, 4] = 0  # fires in fewer images than are kept
    labels = rng.integers(-1, 3, codes.shape[:2])
    return codes.astype(np.float32), labels


def build(codes, labels=None, num_classes=0):
    builder = AtlasBuilder(ATOMS, GRID, num_classes, STRONGEST)
    for number, image in enumerate(codes):
        given = None if labels is None else labels[number]
        builder.add(10 + number, torch.from_numpy(image), given)
    return builder.build()


def test_counts_and_means_are_those_of_a_plain_loop():
    codes, labels = stream()
    atlas = build(codes, labels, num_classes=4)
    for atom in range(ATOMS):
        fired, images, total = 0, 0, 0.0
        map_sum = np.zeros(GRID)
        sums, patches = [0.0] * 4, [0] * 4
        for image in range(len(codes)):
            before = fired
            for patch in range(codes.shape[1]):
                value = max(float(codes[image, patch, atom]), 0.0)
                fired += value > 0
                total += value
                map_sum[divmod(patch, GRID[1])] += value
                label = labels[image, patch]
                if label >= 0:
                    sums[label] += value
                    patches[label] += 1
            images += fired > before
        assert atlas.fired_patches[atom] == fired
        assert atlas.fired_images[atom] == images
        assert atlas.patch_frequency[atom] == fired / codes[..., 0].size
        assert atlas.image_frequency[atom] == images / len(codes)
        np.testing.assert_allclose(atlas.mean_map[atom], map_sum / len(codes), rtol=1e-6)
        np.testing.assert_allclose(atlas.mean_value[atom], total / max(fired, 1), rtol=1e-6)
        expected = [s / n if n else np.nan for s, n in zip(sums, patches, strict=True)]
        np.testing.assert_allclose(atlas.class_means[:, atom], expected, rtol=1e-6)
    assert np.isnan(atlas.class_means[3]).all()
    assert atlas.num_atoms == ATOMS
    assert atlas.grid_hw == GRID


def test_strongest_patches_are_those_of_a_sort():
    codes, _ = stream()
    atlas = build(codes)
    for atom in range(ATOMS):
        best = []
        for image in range(len(codes)):
            value, patch = max((codes[image, p, atom], -p) for p in range(codes.shape[1]))
            if value > 0:
                best.append((-value, 10 + image, -patch))
        best = sorted(best)[:STRONGEST]
        best += [(0, -1, -1)] * (STRONGEST - len(best))
        assert [-v for v, _, _ in best] == atlas.top_values[atom].tolist()
        assert [i for _, i, _ in best] == atlas.top_images[atom].tolist()
        assert [p for _, _, p in best] == atlas.top_patches[atom].tolist()
    assert (atlas.top_images[5] == -1).all()
    assert (atlas.top_images[4] >= 0).sum() <= 2


def test_a_builder_goes_on_from_the_state_of_another():
    codes, labels = stream()
    expected = vars(build(codes, labels, num_classes=4))
    for stop in (0, 2):
        state = {}
        for part in (slice(0, stop), slice(stop, None)):
            builder = AtlasBuilder(ATOMS, GRID, 4, STRONGEST)
            if state:
                builder.restore(state)
            for number in range(len(codes))[part]:
                builder.add(10 + number, torch.from_numpy(codes[number]), labels[number])
            state = {name: array.copy() for name, array in builder.state().items()}
        for name, value in vars(builder.build()).items():
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"sum_map": None}, r"sum_map: expected float64 \(12, 6\), found none"),
        ({"top_images": np.zeros((6, 4), int)}, r"top_images: .* found int64 \(6, 4\)"),
        ({"images": np.array(1.5)}, r"images: expected int64 \(\), found float64 \(\)"),
    ],
)
def test_the_state_of_another_builder_is_refused_whole(damage, message):
    codes, _ = stream()
    builder = AtlasBuilder(ATOMS, GRID, 0, STRONGEST)
    builder.add(0, torch.from_numpy(codes[0]))
    state = {**builder.state(), **damage}
    other = AtlasBuilder(ATOMS, GRID, 0, STRONGEST)
    with pytest.raises(InputError, match=message):
        other.restore({name: array for name, array in state.items() if array is not None})
    with pytest.raises(InputError, match="found none"):
        other.build()


def test_selectivity_is_that_of_a_plain_loop():
    means = np.random.default_rng(1).random((4, 5))
    means[2] = np.nan  # a class without a patch
    means[:2, 3] = means[3, 3] = 0  # an atom that never fires
    means[1, 4], means[[0, 3], 4] = 0.5, 0  # an atom of one class
    index, best = class_selectivity(means)
    for atom in range(5):
        known = {c: means[c, atom] for c in (0, 1, 3)}
        largest = max(known.values())
        if largest == 0:
            assert (index[atom], best[atom]) == (0, -1)
            continue
        winner = max(known, key=known.get)
        others = sum(value for c, value in known.items() if c != winner) / 2
        assert best[atom] == winner
        assert index[atom] == pytest.approx((largest - others) / (largest + others), abs=1e-15)
    assert index[4] == 1


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes_have_no_selectivity(classes):
    codes, labels = stream()
    atlas = build(codes, np.minimum(labels, classes - 1), classes)
    assert (atlas.best_class == -1).all()
    assert (atlas.selectivity == 0).all()


def test_memory_does_not_grow_with_images():
    codes, labels = stream(images=30)
    builder = AtlasBuilder(ATOMS, GRID, 3, STRONGEST)
    sizes = []
    for number, image in enumerate(codes):
        builder.add(number, torch.from_numpy(image), labels[number])
        sizes.append(len(pickle.dumps(builder)))
    assert max(sizes) - sizes[0] < codes[0].nbytes / 10


def test_built_atlas_does_not_change_when_images_follow():
    codes, _ = stream()
    builder = AtlasBuilder(ATOMS, GRID, 0, STRONGEST)
    builder.add(0, torch.from_numpy(codes[0]))
    atlas = builder.build()
    before = {name: np.copy(value) for name, value in vars(atlas).items()}
    builder.add(1, torch.from_numpy(codes[1] + 1))
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(atlas, name), value)


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (np.zeros((11, ATOMS)), None, r"expected codes of shape \(12, 6\), found \(11, 6\)"),
        (np.full((12, ATOMS), np.nan), None, "image 7: expected finite codes"),
        (np.full((12, ATOMS), np.inf), None, "image 7: expected finite codes"),
        (np.zeros((12, ATOMS)), np.full(12, 2), "among 2 classes, found .* of 2 to 2"),
        (np.zeros((12, ATOMS)), np.full(12, -2), "among 2 classes"),
        (np.zeros((12, ATOMS)), np.zeros(5, int), "labels of 12 patches"),
    ],
)
def test_wrong_images_are_refused(codes, labels, message):
    builder = AtlasBuilder(ATOMS, GRID, 2)
    with pytest.raises(InputError, match=message):
        builder.add(7, torch.from_numpy(codes), labels)
    with pytest.raises(InputError, match="found none"):
        builder.build()


def test_wrong_shapes_and_sizes_are_refused():
    atlas = build(stream()[0])
    parts = {**vars(atlas), "top_patches": atlas.top_patches[:, :1]}
    with pytest.raises(InputError, match=r"top_patches: expected shape \(6, 3\), found \(6, 1\)"):
        Atlas(**parts)
    with pytest.raises(InputError, match="strongest: expected at least 1 patch, found 0"):
        AtlasBuilder(ATOMS, GRID, strongest=0)
