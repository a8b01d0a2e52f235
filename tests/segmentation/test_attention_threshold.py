from fractions import Fraction
from math import ceil

import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import attention_masks


def reference_row(row: list[float], by: str, keep: Fraction) -> list[bool]:
    order = sorted(range(len(row)), key=lambda index: (-row[index], index))
    if by == "entries":
        chosen = order[: ceil(keep * len(row))]
    else:
        chosen, mass, total = [], Fraction(0), sum(map(Fraction, row))
        for index in order:
            if mass >= keep * total:
                break
            chosen.append(index)
            mass += Fraction(row[index])
    return [index in chosen for index in range(len(row))]


@pytest.mark.parametrize("by", ["mass", "entries"])
@pytest.mark.parametrize("keep", [Fraction(1, 10), Fraction(3, 5), Fraction(1)])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_attention_masks_match_loop(by: str, keep: Fraction, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    attention = (4 * torch.randn(2, 3, count, generator=generator)).softmax(dim=-1)
    found = attention_masks(attention, by=by, keep=float(keep))
    expected = [[reference_row(row.tolist(), by, keep) for row in image] for image in attention]
    assert found.dtype == torch.bool
    assert found.tolist() == expected


@pytest.mark.parametrize("by", ["mass", "entries"])
def test_attention_masks_of_equal_entries_take_the_first(by: str) -> None:
    found = attention_masks(torch.full((10,), 0.1), by=by, keep=0.6)
    assert found.tolist() == [True] * 6 + [False] * 4


def test_attention_masks_of_one_shot_row_differ_by_rule() -> None:
    row = torch.tensor([0.0, 0.9, 0.05, 0.05])
    assert attention_masks(row, by="mass", keep=0.6).tolist() == [False, True, False, False]
    assert attention_masks(row, by="entries", keep=0.6).tolist() == [False, True, True, True]


def test_attention_masks_by_mass_do_not_depend_on_the_sum_of_the_row() -> None:
    attention = torch.rand(5, 40, generator=torch.Generator().manual_seed(0))
    expected = attention_masks(attention, by="mass")
    assert attention_masks(attention * 1e-20, by="mass").equal(expected)
    assert not attention_masks(torch.zeros(4), by="mass").any()


@pytest.mark.parametrize(
    ("attention", "by", "keep", "message"),
    [
        (torch.zeros(2, 0), "mass", 0.6, "(2, 0)"),
        (torch.zeros(0, 5), "mass", 0.6, "(0, 5)"),
        (torch.tensor(1.0), "mass", 0.6, "shape ()"),
        (torch.ones(4, dtype=torch.int64), "mass", 0.6, "torch.int64"),
        (torch.tensor([0.5, float("nan")]), "entries", 0.6, "found nan among 1"),
        (torch.tensor([0.5, float("inf")]), "mass", 0.6, "found inf among 1"),
        (torch.tensor([0.5, -0.25]), "mass", 0.6, "found -0.25 among 1"),
        (torch.ones(4), "top", 0.6, "('mass', 'entries'), found 'top'"),
        (torch.ones(4), "mass", 0.0, "found 0.0"),
        (torch.ones(4), "entries", 1.5, "found 1.5"),
        (torch.ones(4), "entries", float("nan"), "found nan"),
    ],
)
def test_attention_masks_refuse(
    attention: torch.Tensor, by: str, keep: float, message: str
) -> None:
    with pytest.raises(InputError) as error:
        attention_masks(attention, by=by, keep=keep)  # type: ignore[arg-type]
    assert message in str(error.value)
