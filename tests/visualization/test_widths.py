"""Every figure function at every width, with long names: all words stand on the page, apart."""

from functools import partial

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from crate_interp.visualization import (
    AtomRow,
    Curve,
    CurvePanel,
    atom_effects_figure,
    atom_sheet,
    attention_curves,
    attribution_figure,
    class_scores_figure,
    comparison_figure,
    draw_curves,
    head_effects_figure,
    head_figure,
    layer_figure,
    maps_figure,
    overlay_sheet,
    pca_figure,
    reconstruction_figure,
    write_figure,
)

MODEL = "runs/a-folder-of-a-long-name/vit_base_patch8_224.augreg2_in21k_ft_in1k.safetensors"
NOTE = f"{MODEL} · attention of the class token · colours from 0 to the 99th percentile · 480 px"
RNG = np.random.default_rng(0)
RGB = [RNG.integers(0, 256, (*hw, 3), np.uint8) for hw in ((12, 16), (16, 12), (9, 24))]
FILE = "a_photograph_of_something_with_a_name_that_goes_on.jpg"


def maps(rgb, count):
    return RNG.random((count, *rgb.shape[:2]))


def heads(width):
    named = {f"head {n}": one for n, one in enumerate(maps(RGB[0], 12))}
    masks = maps(RGB[0], 12) > 0.5
    return head_figure(RGB[0], named, masks, "60% of the mass", NOTE, None, width)


def layers(width):
    names = [f"head {n}" for n in range(12)]
    return layer_figure(RGB[0], [maps(RGB[0], 12)] * 3, names, NOTE, width)


def across(width):
    of_images = [maps(rgb, 2) for rgb in RGB]
    return maps_figure(RGB, of_images, [FILE] * 3, ["head 10 (0.45)", "block 11"], NOTE, width)


def curves(width):
    x = np.arange(1.0, 5)
    runs = [Curve(f"{name}: {MODEL}", x, x[:, None]) for name in "abc"]
    titles = ("training loss", "codes that are not zero (%), by block (first: pale)", "AP (%)")
    panels = [CurvePanel(title, runs) for title in titles]
    return draw_curves(panels, "training time (hours), of all runs together", NOTE, width)


def courses(width):
    of_heads, uniform = RNG.random((2, 2, 12, 12)), (1.0, 1.0, 1.0)
    return attention_curves(*of_heads, RNG.random((2, 12)), uniform, NOTE, width)


def atoms(width, **picture):
    patches = [(RGB[0], (2, 2, 4, 4))] * 10
    lines = ["fires on 12 % of patches", "selectivity 0.12"]
    rows = [AtomRow(f"atom {n}", lines, RNG.random((4, 4)), patches) for n in range(3)]
    return atom_sheet(rows, NOTE, width=width, **picture)


def scores(width):
    by_method = {name: RNG.random(4) for name in ("best head", "one head", "principal component")}
    means = dict.fromkeys(by_method, 0.5)
    classes = [f"{FILE} ({n})" for n in range(4)]
    label = "IoU by entries (%, mean over the images of a class)"
    return class_scores_figure(classes, by_method, label, means, NOTE, width)


def reconstructions(width):
    square = [RGB[0][:12, :12]] * 6
    hidden = [np.arange(144).reshape(12, 12) % 4 > 0] * 6
    return reconstruction_figure(square, hidden, square, NOTE, width)


def components(width):
    grey = RNG.random((3, 4, 4))
    rgb = RNG.integers(0, 256, (3, 4, 4, 3), np.uint8)
    return pca_figure(RGB, grey, grey > 0.5, rgb, NOTE, width)


def ablated_atoms(width):
    names = [f"block 11  atom {n}" for n in range(30)]
    return atom_effects_figure(RNG.normal(size=(2, 30)), names, f"drop of {FILE}", NOTE, width)


def ablated_heads(width):
    label = f"drop of the score of {FILE}"
    return head_effects_figure(RNG.normal(size=(12, 12)), range(12), label, True, NOTE, width)


def attributions(width):
    signed = [RNG.normal(size=(4, 4))] * 3
    of_kinds = {"class-token attention": signed, "integrated gradients": signed}
    return attribution_figure(RGB, of_kinds, [FILE * 3] * 3, NOTE, width)


def comparison(width):
    titles = ["principal component"] * 5
    return comparison_figure([[RGB[0]] * 5] * 2, titles, [[FILE] * 5] * 2, NOTE, width)


FIGURES = {
    "ablated atoms": ablated_atoms,
    "ablated heads": ablated_heads,
    "atlas": atoms,
    "atoms": partial(atoms, picture=RGB[0], chosen=RGB[0][..., 0] > 99),
    "attributions": attributions,
    "comparison": comparison,
    "components": components,
    "courses": courses,
    "curves": curves,
    "heads": heads,
    "layers": layers,
    "maps": across,
    "reconstructions": reconstructions,
    "scores": scores,
    "sheet": lambda width: overlay_sheet(RGB * 2, [f"{FILE}: 3 masks"] * 6, NOTE, width=width),
}


def boxes_of(figure):
    """Words and place of each text that is seen, in pixels."""
    unseen = set()  # numbers of ticks beyond the ends of an axis
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks() if axes.axison and axes.get_visible() else ()
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                unseen |= set() if tick in drawn else {tick.label1, tick.label2}
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            box = text.get_window_extent()
            if box.width:
                found.append((text.get_text(), box))
    return found


@pytest.mark.parametrize("width", [None, 3.35, 6.9])
@pytest.mark.parametrize("name", FIGURES)
def test_words_are_on_the_page_and_apart(name, width, tmp_path):
    figure = FIGURES[name](width)
    if width is not None:
        assert figure.get_size_inches()[0] == pytest.approx(width)
    figure.set_dpi(200)
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    boxes = boxes_of(figure)
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= page.width + 1, text
        assert box.y1 <= page.height + 1, text
    for number, (text, box) in enumerate(boxes):
        for other_text, other in boxes[:number]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert wide < 2 or high < 3, (text, other_text)
    said = "".join("".join(text.split()) for text, _ in boxes)
    assert "".join(MODEL.split()) in said


@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_has_type_3_fonts(name, tmp_path):
    write_figure(FIGURES[name](None), tmp_path / "a.pdf", "pdf", 30)
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/CIDFontType2" in content
