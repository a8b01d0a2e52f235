"""The atlas of a block: what makes each of its atoms fire, from a stream of images.

An atom is an entry of the sparse code (CRATE families) or a neuron of the MLP (ViT). It fires on a
patch where its value is positive; negative values, which neurons and the codes of a soft threshold
have, count as zero.

Shapes: A atoms, P strongest patches, C classes, n = h * w patches of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import float64_device, on_float64_device

__all__ = ["Atlas", "AtlasBuilder", "class_selectivity"]

NO_CLASS = -1


def class_selectivity(
    class_means: Float[np.ndarray, "C A"],
) -> tuple[Float64[np.ndarray, " A"], Int64[np.ndarray, " A"]]:
    """Compare the mean value of each atom in its best class with that in the others.

    (m - o) / (m + o) with the mean value m in the class where it is largest and the mean o of the
    other classes' means: 1 for an atom that fires in one class only, 0 for one of equal means.

    Args:
        class_means: Mean value of each atom in each class, not negative; NaN for a class without a
            patch.

    Returns:
        The index in [0, 1], and the class; -1 and an index of 0 for an atom that never fires or
        where fewer than two classes have patches.

    Reference:
        Morcos et al., arXiv 1803.06959, section 2.3.
    """
    means = np.asarray(class_means, np.float64)
    means = means[seen := np.flatnonzero(np.isfinite(means).all(axis=1))]
    atoms = class_means.shape[1]
    if len(means) < 2:
        return np.zeros(atoms), np.full(atoms, NO_CLASS)
    largest = means.max(axis=0)
    others = (means.sum(axis=0) - largest) / (len(means) - 1)
    fires = largest > 0
    index = np.divide(largest - others, largest + others, out=np.zeros(atoms), where=fires)
    # The sum less the largest can miss zero by a rounding error.
    return index.clip(0, 1), np.where(fires, seen[means.argmax(axis=0)], NO_CLASS)


@dataclass(frozen=True, eq=False)
class Atlas:
    """Statistics of every atom of a block over many images.

    Attributes:
        num_images: Number of images.
        fired_patches: Number of patches, of all images, that the atom fired on.
        fired_images: Number of images with such a patch.
        mean_map: Mean value at each place of the patch grid, over all images.
        top_values: Largest values, descending, each of another image; 0 where there are fewer.
        top_images: Images of the largest values, by the numbers that the builder was given; -1
            where there are fewer.
        top_patches: Patches of the largest values, row by row from 0; -1 where there are fewer.
        class_means: Mean value over the patches of each class, NaN for a class without a patch;
            without classes it has no row.

    Raises:
        InputError: Shapes do not agree.
    """

    num_images: int
    fired_patches: Int64[np.ndarray, " A"]
    fired_images: Int64[np.ndarray, " A"]
    mean_map: Float32[np.ndarray, "A h w"]
    top_values: Float32[np.ndarray, "A P"]
    top_images: Int64[np.ndarray, "A P"]
    top_patches: Int64[np.ndarray, "A P"]
    class_means: Float32[np.ndarray, "C A"]

    def __post_init__(self) -> None:
        atoms, top = self.mean_map.shape[:1], self.top_values.shape
        expected = {
            "fired_patches": atoms,
            "fired_images": atoms,
            "mean_map": atoms + self.mean_map.shape[-2:],
            "top_values": atoms + top[-1:],
            "top_images": top,
            "top_patches": top,
            "class_means": self.class_means.shape[:1] + atoms,
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name}: expected shape {shape}, found {getattr(self, name).shape}"
                )

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.mean_map)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.mean_map.shape[1], self.mean_map.shape[2]

    @cached_property
    def patch_frequency(self) -> Float64[np.ndarray, " A"]:
        """Share of all patches that the atom fires on."""
        return self.fired_patches / (self.num_images * self.grid_hw[0] * self.grid_hw[1])

    @cached_property
    def image_frequency(self) -> Float64[np.ndarray, " A"]:
        """Share of the images that the atom fires in."""
        return self.fired_images / self.num_images

    @cached_property
    def mean_value(self) -> Float64[np.ndarray, " A"]:
        """Mean value over the patches that the atom fires on; 0 if there is none."""
        total = self.num_images * self.mean_map.sum(axis=(1, 2), dtype=np.float64)
        return np.asarray(total / np.maximum(self.fired_patches, 1))

    @property
    def selectivity(self) -> Float64[np.ndarray, " A"]:
        """Selectivity index, as `class_selectivity` defines it, in [0, 1]."""
        return self._selectivity[0]

    @property
    def best_class(self) -> Int64[np.ndarray, " A"]:
        """Class in which the mean value of the atom is largest; -1 as `class_selectivity` says."""
        return self._selectivity[1]

    @cached_property
    def _selectivity(self) -> tuple[Float64[np.ndarray, " A"], Int64[np.ndarray, " A"]]:
        return class_selectivity(self.class_means)


class AtlasBuilder:
    """Gathers an atlas image by image; its memory does not grow with their number.

    Args:
        num_atoms: Width of the codes.
        grid_hw: Rows and columns of the patch grid.
        num_classes: Number of classes, 0 if they are not known.
        strongest: Number of patches to keep per atom.
        device: Device of the codes and of the sums.

    Raises:
        InputError: `strongest` is not positive.
    """

    def __init__(
        self,
        num_atoms: int,
        grid_hw: tuple[int, int],
        num_classes: int = 0,
        strongest: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        if strongest < 1:
            raise InputError(f"strongest: expected at least 1 patch, found {strongest}")
        self._grid_hw = grid_hw
        self._images = 0
        device = float64_device(torch.device(device))
        counts: Any = {"dtype": torch.int64, "device": device}
        sums: Any = {"dtype": torch.float64, "device": device}
        self._fired_patches = torch.zeros(num_atoms, **counts)
        self._fired_images = torch.zeros(num_atoms, **counts)
        self._sum_map = torch.zeros(grid_hw[0] * grid_hw[1], num_atoms, **sums)
        self._class_sums = torch.zeros(num_classes, num_atoms, **sums)
        self._class_patches = torch.zeros(num_classes, **counts)
        self._top_values = torch.zeros(num_atoms, strongest, device=device)
        self._top_images = torch.full((num_atoms, strongest), -1, **counts)
        self._top_patches = torch.full((num_atoms, strongest), -1, **counts)

    @torch.inference_mode()
    def add(
        self,
        image: int,
        codes: Float[Tensor, "n A"],
        labels: Int64[np.ndarray, " n"] | None = None,
    ) -> None:
        """Take one image into account.

        Args:
            image: Number of the image, not negative, by which the atlas will name it.
            codes: Values of the atoms at its patches, row by row.
            labels: Class of each patch; -1 for a patch without a class.

        Raises:
            InputError: The shape is not that of the builder, a value is not finite, or a label is
                no class.
        """
        codes = on_float64_device(codes).float().clamp(min=0)
        self._check(image, codes, labels)
        self._images += 1
        fires = codes > 0
        self._fired_patches += fires.sum(dim=0)
        self._fired_images += fires.any(dim=0)
        self._sum_map += codes
        self._keep_strongest(image, codes)
        for label in () if labels is None else np.unique(labels[labels != NO_CLASS]).tolist():
            of_class = torch.from_numpy(np.flatnonzero(labels == label)).to(codes.device)
            self._class_sums[label] += codes[of_class].sum(dim=0, dtype=torch.float64)
            self._class_patches[label] += len(of_class)

    def build(self) -> Atlas:
        """Give the atlas of all images so far.

        Raises:
            InputError: There was none.
        """
        if not self._images:
            raise InputError("expected an image or more to make an atlas of, found none")
        rows, columns = self._grid_hw
        mean_map = (self._sum_map / self._images).float().T.unflatten(1, (rows, columns))
        class_means = (self._class_sums / self._class_patches[:, None]).float()
        return Atlas(
            num_images=self._images,
            fired_patches=self._fired_patches.cpu().numpy().copy(),
            fired_images=self._fired_images.cpu().numpy().copy(),
            mean_map=mean_map.contiguous().cpu().numpy(),
            top_values=self._top_values.cpu().numpy().copy(),
            top_images=self._top_images.cpu().numpy().copy(),
            top_patches=self._top_patches.cpu().numpy().copy(),
            class_means=class_means.cpu().numpy(),
        )

    def state(self) -> dict[str, Shaped[np.ndarray, ...]]:
        """Give all sums so far as arrays by name; those on a CPU are no copies."""
        sums = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        arrays = {name.lstrip("_"): value.cpu().numpy() for name, value in sums.items()}
        return {"images": np.array(self._images), **arrays}

    def restore(self, state: Mapping[str, Shaped[np.ndarray, ...]]) -> None:
        """Go on from the sums of another builder of the same sizes.

        Args:
            state: Arrays that `state` gave.

        Raises:
            InputError: An array is missing, or of another type or shape; nothing is changed.
        """
        own = self.state()
        for name, array in own.items():
            given = state.get(name)
            if given is None or (given.dtype, given.shape) != (array.dtype, array.shape):
                described = "none" if given is None else f"{given.dtype} {given.shape}"
                raise InputError(f"{name}: expected {array.dtype} {array.shape}, found {described}")
        self._images = int(state["images"])
        for name in own.keys() - {"images"}:
            sums = torch.from_numpy(state[name]).to(self._sum_map.device)
            setattr(self, f"_{name}", sums)

    def _check(
        self, image: int, codes: Float[Tensor, "n A"], labels: Int64[np.ndarray, " n"] | None
    ) -> None:
        if codes.shape != self._sum_map.shape:
            shapes = f"{tuple(self._sum_map.shape)}, found {tuple(codes.shape)}"
            raise InputError(f"image {image}: expected codes of shape {shapes}")
        if not codes.isfinite().all():
            raise InputError(f"image {image}: expected finite codes, found NaN or infinity")
        if labels is not None and (
            labels.shape != codes.shape[:1]
            or labels.min() < NO_CLASS
            or labels.max() >= len(self._class_sums)
        ):
            raise InputError(
                f"image {image}: expected labels of {len(codes)} patches among "
                f"{len(self._class_sums)} classes, found {labels.shape} of {labels.min()} to "
                f"{labels.max()}"
            )

    def _keep_strongest(self, image: int, codes: Float[Tensor, "n A"]) -> None:
        strongest, patches = codes.max(dim=0)
        values = torch.cat([self._top_values, strongest[:, None]], dim=1)
        # Stable, so that of equal values the earlier image stays in front.
        values, order = values.sort(dim=1, descending=True, stable=True)
        fires = (strongest > 0)[:, None]
        images = torch.cat([self._top_images, torch.where(fires, image, -1)], dim=1)
        patches = torch.cat([self._top_patches, torch.where(fires, patches[:, None], -1)], dim=1)
        kept = order[:, : self._top_values.shape[1]]
        self._top_values = values[:, : kept.shape[1]].contiguous()
        self._top_images = images.gather(1, kept)
        self._top_patches = patches.gather(1, kept)
