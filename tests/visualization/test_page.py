"""Pages of numbers, charts and pictures: nothing of the data is markup, nothing is loaded."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.visualization import (
    Bars,
    Facts,
    Histogram,
    LineChart,
    PageTable,
    PictureStrip,
    Section,
    Words,
    write_page,
)
from crate_interp.visualization.markup import fill_template

HOSTILE = "</title><script>alert('1')</script>\" onerror=\"x\u202e\x00{{BODY}}\udc80"
SHOWN = "</title><script>alert('1')</script>\" onerror=\"x\\u202e\\x00{{BODY}}\\udc80"  # as text


class Reader(HTMLParser):
    """Tags with their attributes, and the words, as a browser reads them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def every_part(name):
    picture = np.zeros((4, 6, 3), np.uint8)
    return [
        Words(name),
        PageTable([name], [[name]]),
        Facts([(name, name)]),
        Bars([(name, 1.0, name)]),
        Histogram(name, np.array([0.5]), (0, 1), 2, name, name),
        LineChart(name, np.array([0.0, 1.0]), [(name, np.array([1.0, 0.0]))], name, name),
        PictureStrip(name, [(name, picture)], name),
    ]


def test_no_text_of_the_data_is_markup():
    page = write_page(HOSTILE, HOSTILE, [Section(HOSTILE, every_part(HOSTILE), "all")])
    plain = write_page("name", "name", [Section("name", every_part("name"), "all")])
    read, expected = Reader(page), Reader(plain)
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in expected.tags]
    assert [sorted(attrs) for _, attrs in read.tags] == [
        sorted(attrs) for _, attrs in expected.tags
    ]
    assert [word.replace(SHOWN, "name") for word in read.words] == expected.words
    page.encode()  # half a surrogate pair could not be written


def test_a_page_loads_nothing():
    page = write_page("Title", "About it.", [Section("All", every_part("name"), "all")])
    read = Reader(page)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[\w+/=]*", "", page))
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in read.tags)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in read.all("img"))
    policy = next(meta for meta in read.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy["content"]
    assert "prefers-color-scheme: dark" in page


def test_pictures_are_small_jpeg_of_the_same_look():
    rgb = np.zeros((1000, 2000, 3), np.uint8)
    rgb[:, 1000:] = (250, 20, 120)
    (image,) = Reader(PictureStrip("one", [("image", rgb)]).html()).all("img")
    content = base64.b64decode(image["src"].split(",")[1])
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert shown.shape == (160, 320, 3)
    np.testing.assert_allclose(shown[80, [10, 300]], [(0, 0, 0), (250, 20, 120)], atol=8)
    assert image["alt"] == "one: image"
    assert len(content) < 10_000


def test_histogram_counts_as_numpy_does():
    values = np.random.default_rng(0).normal(0.5, 0.4, 100)
    chart = Histogram("Title", values, (0.0, 1.0), 5, "score", "images").html()
    counts, _ = np.histogram(values.clip(0, 1), 5, (0, 1))
    titles = re.findall(r"<title>(.*?)</title>", chart)
    assert [int(title.split(": ")[1]) for title in titles] == counts.tolist()
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)]
    np.testing.assert_allclose(heights, counts / counts.max() * max(heights), atol=0.1)


def test_lines_go_through_their_points():
    x = np.linspace(0, 1, 5)
    y = np.array([1.0, 0.5, np.nan, 0.25, 0.0])
    chart = LineChart("Title", x, [("a", y), ("b", x)], "recall", "precision").html()
    lines = re.findall(r'class="c(\d)" points="([^"]*)"', chart)
    points = {
        number: np.array([point.split(",") for point in line.split()], float)
        for number, line in lines[:2]
    }
    left, right, bottom, top = 42, 348, 178, 10
    np.testing.assert_allclose(
        points["0"][:, 0], (left + x * (right - left))[[0, 1, 3, 4]], atol=0.1
    )
    expected = (bottom + y * (top - bottom))[[0, 1, 3, 4]]
    np.testing.assert_allclose(points["0"][:, 1], expected, atol=0.1)
    assert len(points["1"]) == 5


def test_empty_and_bad_parts():
    assert "<section" not in write_page("Title", "", [Section("Nothing", [], "none")])
    assert "<rect" not in Histogram("Title", np.zeros(0), (0, 1), 3, "x", "y").html()
    assert Bars([]).html() == '<table class="bars"></table>'
    assert "width:0.0%" in Bars([("none", 0.0, "0")]).html()
    with pytest.raises(InputError, match="expected 2 cells in each row, found 1"):
        PageTable(["a", "b"], [["1", "2"], ["1"]])
    with pytest.raises(InputError, match="histogram: expected bins between two limits, found 0"):
        Histogram("Title", np.zeros(1), (0, 1), 0, "x", "y").html()
    for lines in ([], [("a", np.zeros(3))], [("a", np.zeros(2))] * 5):
        with pytest.raises(InputError, match="lines: expected 1 to 4 of 2 points"):
            LineChart("Title", np.zeros(2), lines, "x", "y").html()


def test_pages_have_one_stylesheet_and_templates_are_filled_once():
    style = re.compile(r"<style>\n(.*?)</style>", re.S)
    pages = [
        write_page("{{BODY}}", "", []),
        fill_template("atlas_page.html", "a", DATA="{{STYLE}}"),
    ]
    assert len({style.findall(page)[0] for page in pages}) == 1
    assert "<title>{{BODY}}</title>" in pages[0]
    assert 'id="data">{{STYLE}}</script>' in pages[1]
    assert "<title>\\u202ea&lt;b&gt;</title>" in fill_template("page.html", "\u202ea<b>", BODY="")
    with pytest.raises(KeyError, match="BODY"):
        fill_template("page.html", "without its body")
