"""Completion, as shells do it."""

import shutil
import subprocess
import sys

import pytest

from crate_interp.cli import main

shtab = pytest.importorskip("shtab", reason="the extra completion brings shtab")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """What bash reads, made without torch."""
    code = (
        "import sys\nfrom crate_interp.cli import main\nmain(['completion', 'bash'])\n"
        "assert not {'torch', 'timm', 'matplotlib'} & set(sys.modules), 'loaded too much'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp("completion") / "crate-interp"
    path.write_text(done.stdout)
    return path


def completed(script, *words, folder="/"):
    """What bash offers for the last word."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    line = (
        f"source {script}; COMP_WORDS=(crate-interp {' '.join(repr(word) for word in words)}); "
        f"COMP_CWORD={len(words)}; "
        "$(complete -p crate-interp | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        [bash, "-c", line], capture_output=True, text=True, check=True, cwd=folder, timeout=60
    )
    return sorted(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mask"], ["maskcut"]),
        (["benchmark", "s"], ["saliency", "semantic"]),
        (["benchmark", "voc2012", "--prot"], ["--protocol"]),
        (["maskcut", "--keep-as"], ["--keep-aspect"]),
        (["maskcut", "--refine", "pyd"], ["pydensecrf"]),
        (["features", "--si"], ["--site", "--size"]),
        (["features", "--pool", ""], ["class", "head", "mean", "none"]),
        (["pca", "--format", "s"], ["svg"]),
        (["completion", "zs"], ["zsh"]),
        (["segment", "--spac"], ["--spacing"]),  # of a segmenter that is not the default
        (["side-by-side", "--min-ar"], ["--min-area"]),
    ],
)
def test_bash_completes_commands_options_and_words(script, words, expected):
    assert completed(script, *words) == expected


def test_bash_completes_files(script, tmp_path):
    (tmp_path / "weights.npz").touch()
    for words in (["maskcut", "--weights", "wei"], ["pca", "wei"]):
        assert "weights.npz" in completed(script, *words, folder=tmp_path)


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_the_commands(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("maskcut", "evaluate-classifier", "voc2012", "--tau" if shell == "zsh" else "tau"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["ksh"], "shell: expected"), ([], "missing: shell")],
)
def test_wrong_shells_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", *arguments])
    assert message in capsys.readouterr().err


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert (
        "completion needs shtab: pip install 'crate-interp[completion]'" in capsys.readouterr().err
    )
