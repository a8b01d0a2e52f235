"""The page in Chromium: one server for all tests of this file."""

import io
import re
import runpy
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra app")

from crate_interp.explorer.pictures import Pictures

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

CHROMIUM = Path("/usr/bin/chromium")
SECONDS = 60  # that the server may take to start on a machine that does much else
MEGABYTES = 2  # largest upload


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with one picture, which EXIF turns."""
    folder = tmp_path_factory.mktemp("mine")
    rgb = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(folder / "turned.jpg", exif=exif, quality=95)
    return folder


@pytest.fixture(scope="module")
def address(pictures):
    """Address of a server that runs as long as the tests do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--model", "demo", "demo_vit", "--images", str(pictures), "--port", str(port)]
    command = [sys.executable, "-m", "crate_interp", "explore", *options]
    command += ["--most-megabytes", str(MEGABYTES), "--device", "cpu"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = server.stdout.readline()
        while line and "http" not in line:
            line = server.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port}/")
        yield line.split()[0]
    finally:
        server.terminate()
        server.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A new page that shows its first answer; it has asked for nothing from elsewhere."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector(".answer", timeout=1000 * SECONDS)
    yield page
    hosts = {url.split("/")[2] for url in asked if url.startswith("http")}
    page.close()
    assert hosts == {address.split("/")[2]}
    assert not errors


def words(page):
    return page.inner_text(".answer .words")


def wait_for_words(page, text):
    page.wait_for_function(
        "text => { const w = document.querySelector('.answer .words');"
        " return w && w.innerText.includes(text) }",
        arg=text,
    )


def upload(page, name, content, mime="image/png"):
    page.set_input_files(".upload input", {"name": name, "mimeType": mime, "buffer": content})


def png_of(rgb):
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "PNG")
    return content.getvalue()


def png_header(width, height):
    """A PNG that says it is large, and has a few bytes of zeros."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def test_a_page_shows_the_first_picture_and_its_heads(page):
    assert "class token" in words(page)
    assert page.locator(".answer figure").count() == 4  # heads
    assert page.locator(".answer figure img").count() == 8  # with their masks
    assert "picture=mine0/turned.jpg" in page.url.replace("mine1", "mine0")
    assert "60 x 90" in page.inner_text(".columns .looked-at figcaption")  # EXIF turned it


# A page whose models never come.
OPENING = """
from concurrent.futures import Future
from threading import Event
from crate_interp.explorer.opening import build_opening, style
from crate_interp.explorer.pictures import Pictures

shown = Event()
opening = build_opening(Pictures(), Future(), shown)
print(opening.launch(prevent_thread_lock=True, quiet=True, **style())[1], flush=True)
shown.wait()
print("shown", flush=True)
Event().wait()
"""


def test_a_picture_is_shown_before_the_models_are_there(browser):
    server = subprocess.Popen([sys.executable, "-c", OPENING], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        page = browser.new_page()
        page.goto(f"{address}?picture=photos/000000358083.jpg&model=/etc/passwd")
        page.wait_for_selector(".opening .words")
        assert page.inner_text(".opening .words") == "Loading the models ..."
        assert page.inner_text(".looked-at figcaption").startswith("000000358083.jpg, ")
        assert server.stdout.readline() == "shown\n"
        page.goto(f"{address}?picture=photos/none.jpg")
        page.wait_for_selector(".opening .words")
        assert page.locator(".looked-at").count() == 0
        page.close()
    finally:
        server.kill()
        server.communicate(timeout=SECONDS)


def test_the_opening_needs_no_torch():
    code = (
        "import sys\n"
        "from crate_interp.explorer import serve\n"
        "from crate_interp.explorer.pictures import Pictures\n"
        "pictures = Pictures()\n"
        "assert pictures.get(pictures.first).shown.size\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_that_cannot_be_had_ends_the_page_in_one_line(tmp_path):
    command = [sys.executable, "-m", "crate_interp", "explore", "--model", "demo", "none.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "none.pth" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_click_shows_the_attention_of_that_patch(page):
    page.locator(".columns .looked-at .pick").click(position={"x": 5, "y": 5})
    wait_for_words(page, "the patch at")
    assert page.locator(".patch-mark").count() > 1
    assert re.search(r"patch=\d+,\d+", page.url)
    before = page.input_value("label:has-text('patch') >> input, textarea >> nth=0")
    page.locator(".columns .looked-at .pick").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("before => !location.href.includes('patch=' + before)", arg=before)


def test_a_slider_shows_another_block(page):
    slider = page.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("ArrowLeft")
    wait_for_words(page, "block 2")
    assert "o.block=2" in page.url


def test_two_models_stand_side_by_side(page):
    choose(page, "beside it", "demo_vit")
    page.wait_for_function("document.querySelectorAll('.answer').length == 2")
    assert page.locator(".answer h2").all_inner_texts() == ["demo", "demo_vit"]


def choose(page, label, option):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def test_another_set_another_picture_another_method(page):
    choose(page, "pictures", "photos")
    page.wait_for_function("location.href.includes('picture=photos/000000377575.jpg')")
    choose(page, "picture", "000000358083.jpg")
    page.wait_for_function("location.href.includes('picture=photos/000000358083.jpg')")
    page.get_by_role("tab", name="Masks").click()
    wait_for_words(page, "maskcut finds")
    choose(page, "method", "spectral")
    wait_for_words(page, "spectral finds")
    page.get_by_label("eigenvectors").first.wait_for()
    assert "kind=spectral" in page.url


def serious_violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_every_view_answers_and_can_be_read_by_all(page):
    assert not serious_violations(page)
    for tab in page.get_by_role("tab").all()[1:]:
        before = page.url
        tab.click()
        page.wait_for_function("before => location.href != before", arg=before)
        page.wait_for_selector(".answer")
        assert page.locator("[role=alert]:not(:empty)").count() == 0, tab.inner_text()
        assert not serious_violations(page), tab.inner_text()
    assert "view=switched-off" in page.url


def test_masks_can_be_saved(page, pictures):
    page.get_by_role("tab", name="Masks").click()
    wait_for_words(page, "maskcut finds")
    with page.expect_download() as download:
        page.get_by_role("button", name="Masks (PNG)").click()
    path = download.value.path()
    name = download.value.suggested_filename
    assert name.startswith("turned-demo-mask")
    files = zipfile.ZipFile(path) if name.endswith(".zip") else None
    with Image.open(files.open("1.png") if files else path) as mask:
        assert mask.size == (60, 90)
        assert set(np.unique(mask).tolist()) <= {0, 255}


def test_controls_can_be_reached_by_keys(page):
    reached = set()
    page.locator(".upload input").focus()
    for _ in range(60):  # a page that is still being laid out may take the focus away once
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('role')"))
        reached.add(page.evaluate("document.activeElement.type"))
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert {"application", "tab", "range", "picture", "model", "head"} <= reached


def test_a_link_shows_the_same_again(browser, address, page):
    link = f"{address}?picture=photos/000000377575.jpg&model=demo_vit&view=masks&kind=tokencut"
    link += "&o.block=2&patch=20,30&size=128"
    page.goto(link)
    wait_for_words(page, "tokencut")
    assert "demo_vit" in words(page)
    assert page.input_value("input[aria-label='method']") == "tokencut"
    assert page.url.split("?")[1].split("&") == [
        *("picture=photos/000000377575.jpg", "model=demo_vit", "size=128", "patch=20,30"),
        *("view=masks", "kind=tokencut", "o.block=2"),
    ]


@pytest.mark.parametrize(
    "query",
    [
        *("model=/etc/passwd", "picture=photos/../../x.jpg", "patch=9999,9999"),
    ],
)
def test_a_link_that_is_wrong_is_refused_in_one_line(browser, address, query):
    page = browser.new_page()
    page.goto(f"{address}?{query}")
    page.wait_for_selector(".answers .alert")
    message = page.inner_text(".answers .alert")
    assert "expected" in message or "outside" in message
    assert "\n" not in message
    assert "passwd" not in message or "found" in message
    page.close()


def test_an_uploaded_picture_is_shown(page):
    rgb = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    upload(page, "own.png", png_of(rgb))
    page.wait_for_function("location.href.includes('picture=uploads/')")
    assert "own.png, 50 x 40 pixels" in page.inner_text(".columns .looked-at figcaption")
    page.reload()
    page.wait_for_selector(".answer")
    assert "own.png" in page.inner_text(".columns .looked-at figcaption")


HOSTILE = {
    "bomb.png": (png_header(60_000, 60_000), "exceeds limit of"),
    "drawn.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", ""),
    "text.png": (b"this is no picture", "not an image"),
    "empty.png": (b"", "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_upload_is_refused_and_the_page_goes_on(page, name):
    content, reason = HOSTILE[name]
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    upload(page, name, content)
    page.wait_for_selector(".answers .alert")
    message = page.inner_text(".answers .alert")
    assert message.startswith(f"{name}: ")
    assert reason in message
    assert "\n" not in message
    assert "/" not in message.replace("HEIC/", "")
    assert not dialogs
    page.get_by_role("tab", name="PCA").click()
    wait_for_words(page, "variance")


def test_a_file_that_is_too_large_is_refused_by_page_and_server(page, address):
    upload(page, "large.png", bytes(int(MEGABYTES * 1e6) + 1))
    page.wait_for_selector(".upload-place .alert:not(:empty)")
    assert "large.png: 2 MB are more than the limit of 2 MB" in page.inner_text(".upload-place")
    assert refused(address, "gradio_api/queue/join", 100_000_000)[0] == 413


def refused(address, path, count=0):
    """Status and text of a request that has a body of so many zeros."""
    request = urllib.request.Request(address + path, data=bytes(count) if count else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):  # closed while the body was still coming
        return 413, ""


@pytest.mark.parametrize(
    "path",
    [
        *("gradio_api/upload", "gradio_api/file=/etc/passwd", "file=/etc/passwd", "monitoring"),
        *("gradio_api/file/etc/passwd", "gradio_api/proxy=http://example.org", "docs", "login"),
        *("gradio_api/stream/x/1/2/playlist.m3u8", "gradio_api/component_server"),
    ],
)
def test_nothing_else_is_served(address, path):
    status, text = refused(address, path)
    assert status == 404
    assert "\n" not in text


def test_no_answer_has_a_path_of_the_server(address, pictures):
    for path in ("", "config", "gradio_api/info", "theme.css"):
        status, text = refused(address, path)
        assert status == 200
        for place in (
            str(pictures),
            str(pictures.parent),
            sys.prefix,
            str(Path(__file__).parents[2]),
        ):
            assert place not in text


def test_a_space_loads_its_models_and_pictures():
    path = Path(__file__).parents[2] / "pipelines" / "space" / "app.py"
    explore = runpy.run_path(str(path))["explore"]
    explorer = explore.explorer(Pictures(explore.images))
    assert explorer.checked(explorer.start).model == "photo"
