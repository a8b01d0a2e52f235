"""Sheets and pages of atoms."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.structures import ImageGeometry
from crate_interp.visualization import (
    AtomCard,
    AtomRow,
    Thumbnail,
    TokenCard,
    TokenContext,
    atlas_page,
    atom_sheet,
    context_window,
    token_atlas_page,
)

GEOMETRY = ImageGeometry((40, 40), (40, 40), (8, 8), stride_hw=(4, 4))


@pytest.mark.parametrize(
    ("picture_hw", "box", "expected"),
    [
        ((100, 200), (96, 46, 100, 50), (84, 34, 112, 62)),  # seven patches
        ((400, 600), (96, 46, 98, 48), (47, 0, 147, 100)),  # a quarter, moved down
        ((100, 200), (196, 96, 200, 100), (172, 72, 200, 100)),  # moved into the corner
        ((40, 60), (0, 0, 20, 20), (0, 0, 40, 40)),  # as large as the picture allows
        ((7, 5), (1, 2, 2, 3), (0, 0, 5, 5)),
    ],
)
def test_context_window_is_a_square_inside_the_picture(picture_hw, box, expected):
    assert context_window(picture_hw, box) == expected


def row(patches=2, name="atom 3"):
    rng = np.random.default_rng(0)
    pictures = [(rng.integers(0, 256, (40, 60, 3), np.uint8), (0, 8, 8, 16))] * patches
    return AtomRow(name, ["often", "class"], rng.random((8, 8)), pictures)


def words_of(figure):
    """Texts of the page, and titles of the panels."""
    return [text.get_text() for text in figure.texts] + [axes.get_title() for axes in figure.axes]


def test_sheet_shows_every_atom_with_its_map_and_patches():
    figure = atom_sheet([row(2), row(3, "atom 4"), row(0, "atom 5")], "Title")
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 3 + 2 + 3
    texts = words_of(figure)
    assert {"Title", "atom 3", "atom 4", "atom 5", "often\nclass", "mean map"} <= set(texts)
    crop = figure.axes[1]
    assert crop.get_images()[0].get_array().shape == (40, 40, 3)
    outline = crop.patches[1]
    x, y = outline.get_xy()
    assert x < 0 < 8 < x + outline.get_width() < 9
    assert y < 8 < 16 < y + outline.get_height() < 17


def test_sheet_of_a_picture_outlines_what_was_chosen():
    picture = np.zeros((40, 60, 3), np.uint8)
    chosen = np.zeros((40, 60), bool)
    chosen[:10, 5:20] = True
    figure = atom_sheet([row()], "Title", picture, chosen)
    axes = figure.axes[0]
    assert axes.get_images()[0].get_array().shape == picture.shape
    corners = np.concatenate(
        [path.vertices for lines in axes.collections for path in lines.get_paths()]
    )
    corners = corners - 0.5  # from the corner of the first pixel to its middle
    assert corners.min(axis=0) == pytest.approx([4.5, -0.5])
    assert corners.max(axis=0) == pytest.approx([19.5, 9.5])
    assert "here" in words_of(figure)


def test_sheet_refuses_no_atom_and_another_size():
    with pytest.raises(InputError, match="expected one atom or more to draw"):
        atom_sheet([], "Title")
    with pytest.raises(InputError, match=r"chosen pixels of \(3, 4\) in an image of \(4, 4\)"):
        atom_sheet([row()], "Title", np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4), bool))


class Checker(HTMLParser):
    """Finds tags that are not closed in order, ids, and the contents of scripts."""

    VOID = frozenset({"meta", "input", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.scripts, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href", "action") if name in given]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def card(atom=0, **differences):
    entry = {
        "atom": atom,
        "frequency": 0.25,
        "images": 6,
        "mean": 1 / 3,
        "selectivity": 0.5,
        "best_class": 1,
        "mean_map": np.arange(81.0).reshape(9, 9),
        "patches": [(7, 80, 2.0), (9, 0, 1.23456)],
    }
    return AtomCard(**entry | differences)


def page_of(cards, classes=("cat", "</script><b>")):
    thumbnails = [
        Thumbnail(7, "seven & co.jpg", "thumbnails/000007.jpg", (30, 40)),
        Thumbnail(9, "nine.jpg", "thumbnails/000009.jpg", (40, 40)),
    ]
    return atlas_page("A <title>", "About it.", cards, thumbnails, classes, GEOMETRY, 12)


def checked(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_page_is_whole_and_asks_for_nothing_outside():
    page = page_of([card()])
    checker = checked(page)
    assert len(checker.ids) == len(set(checker.ids))
    asked = set(re.findall(r'byId\("(\w+)"\)', checker.scripts[1])) | {"sort", "search", "least"}
    assert asked <= set(checker.ids)
    assert checker.addresses == []
    assert not re.search(r"https?:|//[a-z]+\.|@import|fetch\(", page)
    assert "<title>A &lt;title&gt;</title>" in page
    assert "prefers-color-scheme: dark" in page
    assert "{{" not in page


def test_page_holds_what_the_cards_say():
    dead = card(1, frequency=0, images=0, mean=0, best_class=-1, mean_map=np.zeros((9, 9)))
    data = json.loads(checked(page_of([card(), dead])).scripts[0])
    assert data["grid"] == [9, 9]
    assert data["map"] == [9, 9]
    assert data["patch"] == {"step": [0.1, 0.1], "size": [0.2, 0.2]}
    assert data["classes"] == ["cat", "</script><b>"]
    assert data["pictures"][0] == [7, "seven & co.jpg", "thumbnails/000007.jpg", 40, 30]
    first, second = data["atoms"]
    levels = np.frombuffer(bytes.fromhex(first.pop("map")), np.uint8)
    np.testing.assert_array_equal(levels, np.rint(255 * np.arange(81) / 80))
    assert first == {
        "atom": 0,
        "frequency": 0.25,
        "images": 6,
        "mean": 0.333,
        "selectivity": 0.5,
        "class": 1,
        "patches": [[7, 80, 2.0], [9, 0, 1.23]],
    }
    assert set(second["map"]) == {"0"}
    assert len(data["colours"]) == 256


def test_large_maps_are_averaged():
    data = json.loads(
        checked(
            atlas_page(
                "T",
                "",
                [card(mean_map=np.kron(np.eye(16), np.ones((2, 2))), patches=[])],
                [],
                [],
                ImageGeometry((64, 64), (64, 64), (2, 2)),
                3,
            )
        ).scripts[0]
    )
    assert data["map"] == [16, 16]
    levels = np.frombuffer(bytes.fromhex(data["atoms"][0]["map"]), np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(levels, 255 * np.eye(16))
    assert data["least"] == 3


def test_page_of_no_atom_is_refused():
    with pytest.raises(InputError, match="expected one atom or more"):
        page_of([])


def test_page_of_tokens_shades_them_by_value_and_keeps_markup_out():
    context = TokenContext("window 1, token 3", ["</script>", "a", "\n"], [0.0, 2.0, 1.0], 1)
    weaker = TokenContext("window 0, token 0", ["b"], [1.0], 0)
    card = TokenCard(4, 0.25, 2, 1.0, 0.5, 1, [context, weaker])
    page = token_atlas_page("A <title>", "about", [card, TokenCard(5, 0, 0, 0, 0, -1, [])], "a ", 2)
    assert "A &lt;title&gt;" in page
    assert page.count("</script>") == 2
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["classes"] == ["a", "\u2423"]
    first, dead = data["atoms"]
    assert first["contexts"][0] == ["window 1, token 3", 2, 1, ["</script>", "a", "\n"], "094"]
    assert first["contexts"][1][-1] == "4"
    assert dead["contexts"] == []
    with pytest.raises(InputError, match="expected one atom or more on the page, found none"):
        token_atlas_page("title", "about", [], [], 2)
