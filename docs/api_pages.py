"""The reference: a page for each room, written from its door, and one of the package's own names.

Doors (`__init__.py`, or the stub of a lazy one) say in which file a name is defined. A name is
looked up there, because a function and its file often have the same name.
"""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import crate_interp

PACKAGE = Path(crate_interp.__file__).parent
ROOMS = (
    "structures", "weights", "models", "data", "hooks", "segmentation", "analysis", "evaluation",
    "visualization", "training", "engine", "runs", "options", "errors",
)  # fmt: skip
_OPTIONS = "    options: {{ heading: {name}, toc_label: {name}, heading_level: 2 }}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {f"docs/api/{room}.md": _page_of(room) for room in ROOMS}
    pages["docs/api/index.md"] = _page_of_the_package()
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def names_of(room: str) -> dict[str, str]:
    """Find the public names of a room, and the module that defines each."""
    module = f"crate_interp.{room}"
    imported = _imports_of(module)
    public = _all_of(_source_of(module))
    names = imported if public is None else public  # stubs have no list: all of it is public
    return {name: _home_of(name, imported.get(name, module)) for name in names}


def _page_of(room: str) -> str:
    parts = [f"# crate_interp.{room}", ast.get_docstring(_read(_file_of(room))) or ""]
    for name, home in sorted(names_of(room).items(), key=lambda item: item[0].lower()):
        if home.startswith("crate_interp."):
            parts.append(f"::: {home}.{name}\n{_OPTIONS.format(name=name)}")
        else:
            parts.append(f"## {name} {{ #{home}.{name} }}\n\n`{home}.{name}`")
    return "\n\n".join(parts)


def _page_of_the_package() -> str:
    homes = {name: home for room in ROOMS for name, home in names_of(room).items()}
    rows = [
        f"| [`{name}`][{homes[name]}.{name}] | {_summary(name, homes[name])} |"
        for name in crate_interp.__all__
    ]
    about = "Names of `crate_interp` itself; each is also a name of its room."
    return "\n".join(["# crate_interp", "", about, "", "| name | |", "|---|---|", *rows])


def _summary(name: str, home: str) -> str:
    """Read the first line of a docstring."""
    for node in _source_of(home).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def _home_of(name: str, module: str) -> str:
    """Follow imports of a name from module to module, as far as the package goes."""
    while module.startswith("crate_interp.") and name in (imports := _imports_of(module)):
        module = imports[name]
    return module


def _imports_of(module: str) -> dict[str, str]:
    inside = ".".join(module.split(".")[:2])  # a stub names its own room's files by a dot
    return {
        item.asname or item.name: f"{inside}.{node.module}" if node.level else str(node.module)
        for node in _source_of(module).body
        if isinstance(node, ast.ImportFrom)
        for item in node.names
    }


def _all_of(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def _source_of(module: str) -> ast.Module:
    """Read a module, of a lazy door the stub."""
    place = module.removeprefix("crate_interp.").replace(".", "/")
    stub = PACKAGE / place / "__init__.pyi"
    return _read(stub if stub.exists() else _file_of(place))


def _file_of(place: str) -> Path:
    folder = PACKAGE / place
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _read(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
