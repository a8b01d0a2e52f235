"""Pages in a browser: readable on a phone, light and dark, by keyboard, and by axe's rules."""

import shutil

import pytest

from crate_interp.cli import main
from crate_interp.visualization import TokenCard, TokenContext, token_atlas_page

QUICK = ["--limit", "3", "--size", "64", "--workers", "0", "--format", "png"]
COMMANDS = {  # page: the command that writes it
    "run/report.html": "maskcut --coco photos --model photo --output run",
    "atlas/index.html": "atlas photos --model photo --output atlas",
    "papers/small/crate-incoherence/report.html": (
        "reproduce crate-incoherence --small --output papers"
    ),
    "train/report.html": "train train_small --output train --set steps=2 warmup_steps=1 "
    "validation_scenes=8 batch_size=8 log_every=1",
}
PAGES = [*COMMANDS, "papers/index.html", "text.html"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of every kind of page."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for page, command in COMMANDS.items():
            limits = QUICK if page.startswith(("run", "atlas")) else []
            assert main([*command.split(), *limits]) == 0
    context = TokenContext("play.txt, 3", ["the", " quality", " of", " mercy"], [0, 0, 1, 0.5], 2)
    cards = [TokenCard(7, 0.1, 2, 0.5, 0.9, 1, [context] * 3), TokenCard(8, 0, 0, 0, 0, -1, [])]
    text = token_atlas_page("Atoms of a text model", "Shakespeare.", cards, ["a", "of"], 4)
    (folder / "text.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra dev brings it")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, folder):
    """Opens a page in a window of a width, and checks that it loads nothing but its own files."""
    contexts = []

    def open_page(name, width, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        asked, errors = [], []
        page.goto((folder / name).as_uri())
        assert errors == []
        assert all(url.startswith(("data:", folder.as_uri())) for url in asked)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_axe_has_nothing_serious_to_say(opened, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra dev")
    for scheme in ("light", "dark"):
        found = axe.Axe().run(opened(name, 900, scheme)).response
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}
        serious = [r for r in found["violations"] if r["impact"] in ("serious", "critical")]
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in serious] == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(opened, name, width):
    page = opened(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('h1').textContent") != ""


def test_tables_and_pictures_are_reached_by_keyboard(opened):
    page = opened("run/report.html", 400)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "wide"
    page = opened("atlas/index.html", 900)
    page.locator(".crop").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
