"""How figures are written, and how their words are fitted into a place."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from crate_interp.visualization import style
from crate_interp.visualization.style import shortened, text_width, wrapped, write_figure

LONG = "vit_base_patch8_224.augreg2_in21k_ft_in1k"


def figure():
    drawn = Figure(figsize=(2, 1))
    drawn.text(0.1, 0.5, "words − λ ‖A‖₀ / N")
    drawn.add_axes((0.5, 0, 0.5, 1)).imshow(np.zeros((2, 2)))
    return drawn


def test_pdf_has_truetype_fonts_and_no_type_3(tmp_path):
    write_figure(figure(), tmp_path / "a.pdf", "pdf", 50)
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/CIDFontType2" in content or b"/TrueType" in content


def test_dollars_in_words_are_no_formula(tmp_path):
    drawn = figure()
    drawn.axes[0].set_title("a $\\no_such_formula$.png")
    drawn.axes[0].set_xticks([0], ["$\\x$ and $y$"])
    write_figure(drawn, tmp_path / "a.svg", "svg", 50)
    assert "$" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_same_figure_gives_the_same_bytes(tmp_path, kind):
    for name in ("a", "b"):
        write_figure(figure(), tmp_path / f"{name}.{kind}", kind, 50)
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_width_of_text_is_that_on_the_canvas():
    drawn = Figure(figsize=(5, 1), dpi=720)
    text = drawn.text(0, 0.5, "Iillustrations WWW", fontsize=9)
    drawn.canvas.draw()
    assert text_width("Iillustrations WWW", 9) == pytest.approx(
        text.get_window_extent().width / 720, rel=0.02
    )


@pytest.mark.parametrize(
    "text",
    ["", "one", "a line of several words that go on", LONG, f"of {LONG}, and\nmore", "W" * 80],
)
@pytest.mark.parametrize("inches", [0.5, 1.0, 3.0])
def test_wrapped_lines_fit_and_say_everything(text, inches):
    lines = wrapped(text, inches, 7)
    assert all(text_width(line, 7) <= inches for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_words_are_broken_behind_their_marks():
    lines = wrapped(LONG, 1.0, 7)
    assert lines[0].endswith("_")
    assert wrapped("two words", 0.45, 7) == ["two", "words"]


def test_letters_that_the_font_lacks_are_named_once(tmp_path, caplog):
    for number in range(2):
        drawn = figure()
        drawn.suptitle("\u68ee\u6797 of \u68ee.png")
        for kind in ("png", "pdf", "svg"):
            write_figure(drawn, tmp_path / f"{number}.{kind}", kind, 50)
    message = "figures show boxes for letters that their font lacks: \u6797\u68ee"
    assert [record.message for record in caplog.records] == [message]
    assert text_width("\u68ee\u6797", 7) > 0


def test_shortened_keeps_both_ends():
    assert shortened("short", 1.0, 7) == "short"
    found = shortened("000000012345_first_of_all.jpg", 0.8, 7)
    assert found.startswith("0000")
    assert found.endswith(".jpg")
    assert "…" in found
    assert text_width(found, 7) <= 0.8


def test_words_of_thousands_of_characters_are_measured_in_parts(monkeypatch):
    measured = []

    def width(text, points, bold=False):
        measured.append(len(text))
        return len(text) / 10

    monkeypatch.setattr(style, "text_width", width)
    lines = wrapped("text" * 3000, 3.0, 7)
    assert {len(line) for line in lines} == {30}
    assert len(shortened("text" * 3000, 3.0, 7)) == 30
    assert sum(measured) < 30 * 12_000
