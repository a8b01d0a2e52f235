import re
import subprocess
import sys
from pathlib import Path

import pytest

from crate_interp.cli import COMMANDS, main
from crate_interp.config import MaskCutConfig

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_lists_the_commands_and_loads_no_torch():
    code = (
        "import sys\nfrom crate_interp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules), 'loaded too much'"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert set(command.split()) <= set(re.findall(r"[\w-]+", done.stdout))


@pytest.mark.parametrize(
    "first", ["crate_interp, timm", "timm, crate_interp", "crate_interp.models, timm"]
)
def test_timm_knows_our_models_whichever_is_imported_first(first):
    done = python(
        f"import {first}\nassert timm.is_model('crate_alpha_base_patch8_224')\n"
        "assert timm.list_models('crate_tiny*')"
    )
    assert done.returncode == 0, done.stderr


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "maskcut" in capsys.readouterr().out


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maskcut", "--model", "demo"], "either --coco SPLIT or --images"),
        (["maskcut", "--model", "demo", "--coco", "a", "--images", "b"], "either --coco"),
        (["maskcut", "--model", "demo", "--coco", "a", "--annotations", "b"], "goes with --images"),
        (["maskcut", "--model", "demo", "--coco", "a", "--tau", "1.5"], "found 1.5"),
        (
            ["maskcut", "--model", "demo", "--coco", "a", "--limit", "0"],
            "limit: expected at least 1",
        ),
        (["maskcut", "--model", "demo", "--coco", "a", "--visualize", "-1"], "visualize"),
        (
            ["benchmark", "voc2012", "x", "--model", "demo", "--keep", "0"],
            "share in (0, 1], found 0",
        ),
        (["benchmark", "voc2012", "x", "--model", "demo", "--pictures", "-1"], "pictures"),
        (
            ["benchmark", "semantic", "x", "--model", "demo", "--patches", "0"],
            "patches: expected at least 1",
        ),
        (["benchmark", "saliency", "x", "y", "--model", "demo", "--tau", "1"], "found 1.0"),
        (["evaluate", "results.json"], "either --coco SPLIT or --annotations"),
        (["download"], "name a data set"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["maskcut", "--coco", "demo"],
        ["maskcut", "--model", "demo", "--coco", "demo", "--max-masks", "many"],
        ["maskcut", "--model", "demo", "--coco", "demo", "--feature", "colour"],
        ["dance"],
        ["benchmark"],
        ["benchmark", "dance"],
        ["benchmark", "voc2012", "demo", "--model", "demo", "--protocol", "most"],
    ],
)
def test_unparsable_options_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_an_unknown_key_in_a_configuration_file_is_named(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("taau: 0.2\n")
    with pytest.raises(SystemExit):
        main(["maskcut", "--model", "demo", "--coco", "demo", "--config", str(file)])
    assert "taau" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file", sorted((ROOT / "pipelines").glob("maskcut_*.yaml")), ids=lambda f: f.stem
)
def test_every_pipeline_is_a_valid_configuration_of_a_known_model(file, monkeypatch):
    from crate_interp.models import resolve_name
    from crate_interp.tasks import maskcut

    seen = []
    monkeypatch.setattr(maskcut, "run", lambda config: seen.append(config) or 0)
    assert main(["maskcut", "--config", str(file)]) == 0
    assert isinstance(seen[0], MaskCutConfig)
    assert resolve_name(seen[0].model).tag


def test_an_interrupted_command_exits_130(monkeypatch, capsys):
    from crate_interp.tasks import models

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "run", interrupt)
    assert main(["models"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    from crate_interp.tasks import models

    def write(_):
        raise OSError(28, "No space left on device", "runs/results.json")

    monkeypatch.setattr(models, "run", write)
    assert main(["models"]) == 2
    error = capsys.readouterr().err
    assert error == "error: [Errno 28] No space left on device: 'runs/results.json'\n"
