"""The site is built without a warning, loads nothing from elsewhere, has every public name."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
LOADING = {  # tags whose address a browser asks for by itself
    **dict.fromkeys(("script", "img", "iframe", "source", "video"), "src"),
    "object": "data",
}


class Page(HTMLParser):
    """What a page loads, and the names of its places."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.places = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places |= {attrs["id"]} if "id" in attrs else set()
        if tag == "link" and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(attrs["href"])
        if tag in LOADING and LOADING[tag] in attrs:
            self.loaded.append(attrs[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra docs brings mkdocs")
    pytest.importorskip("mkdocstrings", reason="the extra docs brings mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    offline = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}
    known = {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | offline | known, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    files = sorted(site.rglob("*.html"))
    return {file: Page(file.read_text(encoding="utf-8")) for file in files}


def test_pages_load_files_of_the_site_alone(site, pages):
    assert len(pages) > 30
    loaded = {(file, unquote(address)) for file, page in pages.items() for address in page.loaded}
    assert any(address.endswith(".js") for _, address in loaded)
    for file, address in loaded:
        assert not re.match(r"[a-z]+:|//", address), f"{file.name} loads {address}"
        start = site if address.startswith("/") else file.parent
        assert (start / re.split(r"[?#]", address)[0].lstrip("/")).is_file(), f"{file}: {address}"
    for file in site.rglob("*.css"):
        loaded_by_style = re.findall(r"url\(['\"]?(?!data:)([^)]*)", file.read_text("utf-8"))
        assert not [address for address in loaded_by_style if re.match(r"[a-z]+:|//", address)]


def test_every_public_name_has_its_place(site, pages):
    api = site / "docs" / "api"
    rooms = [file.stem for file in sorted(api.glob("*.html")) if file.stem != "index"]
    assert len(rooms) >= 14
    for room in rooms:
        public = importlib.import_module(f"crate_interp.{room}").__all__
        shown = {place.rsplit(".", 1)[-1] for place in pages[api / f"{room}.html"].places}
        assert set(public) <= shown, f"{room}: {sorted(set(public) - shown)}"
    names = importlib.import_module("crate_interp").__all__
    index = (api / "index.html").read_text(encoding="utf-8")
    linked = dict(re.findall(r'href="(\w+\.html)#[\w.]*\.(\w+)"><code>\2</code>', index))
    assert set(names) == set(re.findall(r"<code>(\w+)</code></a>", index))
    assert linked


def test_signatures_and_docstrings_are_shown(site):
    page = (site / "docs" / "api" / "segmentation.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]*>", "", page)
    (cut,) = re.findall(r"tokencut\(.*?\) -&gt; TokenCutResult", words, re.S)
    assert "tau" in cut
    assert "arXiv 2202.11539" in words


@pytest.mark.parametrize(
    "page",
    [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "benchmarks" / "README.md",
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_lead_to_files_of_the_repository_or_are_whole_addresses(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./%#?=&@~+-]*)?", target), target
            continue
        place = target.split("#")[0]
        assert (page.parent / unquote(place)).exists(), f"{page.name}: {target}"
