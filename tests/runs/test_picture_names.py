import pytest

from crate_interp.runs.picture_names import file_stems


@pytest.mark.parametrize(
    ("file_names", "expected"),
    [
        ([], []),
        (["a.png", "x/b.jpg"], ["a", "b"]),
        (["a.png", "a.jpg", "b.png"], ["a.png", "a.jpg", "b"]),
        (["x/a.png", "y/a.png"], ["x-a.png", "y-a.png"]),
        (["x-y/a.png", "x/y-a.png", "z/a.png"], ["x-y-a.png", "y-a", "z-a.png"]),
        (["x/y/a.png", "x-y/a.png"], ["1-x-y-a.png", "2-x-y-a.png"]),
        (["A.png", "a.png"], ["1-A.png", "2-a.png"]),
        (["sheet.png"], ["sheet.png"]),
        (["ä" * 125 + ".png"], ["1-" + "ä" * 60]),
    ],
)
def test_stems_are_all_different_and_short(file_names, expected):
    stems = file_stems(file_names, {"sheet"})
    assert stems == expected
    assert len({stem.lower() for stem in stems}) == len(stems)


def test_many_equal_long_names_are_told_apart():
    stems = file_stems([f"{'deep/' * 60}{number}/a.png" for number in range(50)])
    assert len(set(stems)) == 50
    assert max(len(stem) for stem in stems) <= 130
