"""The site is made of the repository's own files, where they lie: links mean the same on GitHub."""

import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
_LINK = re.compile(r"\]\(([^)\s#:]+)[^)\s]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put pages, and what they link to, at their places in the repository."""
    of_theme = [file for file in files if not file.src_uri.endswith((".md", ".py"))]
    pages = [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    linked = {target for page in pages for target in _linked_files(page)}
    places = [*pages, *sorted(linked - set(pages)), ROOT / "docs" / "site.css"]
    ours = [
        File.generated(config, place.relative_to(ROOT).as_posix(), abs_src_path=str(place))
        for place in places
    ]
    return Files([*of_theme, *ours])


def _linked_files(page: Path) -> list[Path]:
    """Files of the repository that a page links to or shows."""
    places = [
        (page.parent / unquote(target)).resolve()
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
    ]
    return [place for place in places if place.is_file() and place.is_relative_to(ROOT)]
