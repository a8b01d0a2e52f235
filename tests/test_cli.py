import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crate_interp.cli import COMMANDS, main
from crate_interp.commands.convert import Convert

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


def test_the_commands_stand_in_groups_on_one_screen(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings[:5] == ["find masks:", "look inside:", "score:", "train:", "manage:"]
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40


def test_the_help_of_every_command_loads_no_torch():
    code = (
        "import sys\nfrom crate_interp.cli import main\n"
        "from crate_interp.commands import find_commands\n"
        "for name in find_commands():\n"
        "    try: main([*name.split(), '--help'])\n"
        "    except SystemExit: pass\n"
        "    heavy = {'torch', 'timm', 'cv2', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "usage: crate-interp maskcut" in done.stdout


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
    assert "usage" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maskcut", "--tau", "x", "--model", "m"], "--tau: expected a number, found 'x'"),
        (["maskcut", "--tau", "1" * 500], "--tau .*expected a number, found one of 500 digits"),
        (["maskcut", "--limit", "!!python/name:os.system"], "--limit .*tag"),
        (["maskcut", "--limit", "!!timestamp x"], "--limit .*tag"),
        (["maskcut", "--limit", "2024-01-01"], "--limit: expected a whole number or null"),
        (["maskcut", "--max-masks", "null"], "--max-masks: expected a whole number, found None"),
        (["maskcut", "--batch-size", "1.5"], "--batch-size: expected a whole number or auto"),
        (["maskcut", "--model-args", "&a [*a]"], "--model-args .*alias"),
        (["maskcut", "--model-args", "[1]"], "--model-args: expected a mapping"),
        (["maskcut", "--model-args", "[" * 5000], "--model-args .*levels"),
        (["maskcut", "--model-args", "{1: 2, 1: 3}"], "--model-args .*occurs twice"),
        (["maskcut", "--max-mask", "3"], "unrecognized arguments: --max-mask"),
        (["maskcut", "--tau"], "--tau: expected one argument"),
        (["maskcut", "--coco", "demo"], "missing: --model"),
        (["evaluate", "--coco", "demo"], "missing: results"),
        (["dance" * 500], "unknown command 'dance"),
        (["benchmark", "voc2013"], ".*did you mean 'benchmark voc2012'"),
        (["maskcut", "--config", "nothing"], "--config 'nothing': .*maskcut_dino_vits8"),
        (["maskcut", "--config", "/"], "/: cannot be read"),
        (["maskcut", "--images", "a\n\x1b[31m", "--model"], "--model: expected one argument"),
    ],
)
def test_a_refused_argument_is_one_line_that_names_it(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = one_line(capsys)
    assert re.match(f"error: {message}", error), error
    assert re.search(r"; usage: crate-interp.* --help$", error.strip())


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) <= 510
    return error


BOMB = "model_args:\n  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a mapping of options, found None"),
        (b"- 1", "expected a mapping"),
        (b"tau: !!float x", "tag"),
        (b"tau: 0.1\ntau: 0.2", "occurs twice"),
        (b"tau: [1]", "tau: expected a number"),
        (b"max_masks: null", "max_masks: expected a whole number, found None"),
        (b"model_args: 2024-01-01", "model_args: expected a mapping"),
        (b"model_args: &a {b: *a}", "alias"),
        (b"images: demo", "images: expected a list or null"),
        (b"strict: 1", "strict: expected true or false"),
        (b'output: "a\\0b"', "output: expected a path"),
        (b"\xff\xfe", "not UTF-8"),
        (BOMB.encode(), "run.yaml: line .*: expected at most 20000 values"),
        (b"[" * 10**5, "levels"),
        (b"1: 2", "unknown key '1'"),
        (b"config: run.yaml", "unknown key 'config'"),
    ],
)
def test_a_refused_configuration_file_is_one_line_that_names_it(content, message, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        main(["maskcut", "--model", "demo", "--coco", "demo", "--config", str(file)])
    assert stopped.value.code == 2
    error = one_line(capsys)
    assert "run.yaml: " in error
    assert re.search(message, error), error


def replace_command(monkeypatch, name, do):
    """Let a command of this name do something else."""
    monkeypatch.setattr(COMMANDS[name].load(), "run", do)


def configuration_of(monkeypatch, name, arguments):
    seen = []
    replace_command(monkeypatch, name, lambda config: seen.append(config) or 0)
    assert main(arguments) == 0
    return seen[0]


def test_the_command_line_comes_before_the_file_and_that_before_the_defaults(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("model: demo\ncoco: demo\ntau: 1e-1\nmax_masks: 7\nweights: null\n")
    arguments = ["maskcut", "--tau", "-0.5", "--batch-size", "auto", "--config", str(file)]
    config = configuration_of(monkeypatch, "maskcut", arguments)
    assert (config.tau, config.max_masks, config.batch_size, config.limit) == (
        -0.5,
        7,
        "auto",
        None,
    )


@pytest.mark.parametrize("given", [["--method", "tokencut"], ["--method=tokencut"], []])
def test_segment_has_the_options_of_its_segmenter(given, tmp_path, monkeypatch, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("model: demo\ncoco: demo\nmethod: tokencut\n")
    arguments = ["segment", *given, "--config", str(file)]
    config = configuration_of(monkeypatch, "segment", arguments)
    assert (config.method, config.tau, hasattr(config, "max_masks")) == ("tokencut", 0.2, False)
    with pytest.raises(SystemExit):
        main([*arguments, "--max-masks", "2"])
    assert "--max-masks" in one_line(capsys)
    assert main(["segment", "--method", "nocut", "--coco", "demo"]) == 2
    assert "expected one of" in one_line(capsys)


def test_values_have_the_types_of_their_options(monkeypatch):
    arguments = ["convert", "a.pth", "--model", "1e3", "--model-args", '{"depth": 2}', "b"]
    config = configuration_of(monkeypatch, "convert", arguments)
    assert config == Convert(Path("a.pth"), Path("b"), "1e3", {"depth": 2})
    arguments = ["train", "r.yaml", "--set", "a=1", "b=2", "--output", "o", "--set", "c=3"]
    assert configuration_of(monkeypatch, "train", arguments).set == ["a=1", "b=2", "c=3"]
    arguments = [
        "ablate",
        "x",
        "y",
        "--model",
        "m",
        "--output",
        "o",
        "--class",
        "3",
        "--block",
        "-2",
    ]
    config = configuration_of(monkeypatch, "ablate", arguments)
    assert (config.images, config.class_, config.block) == (["x", "y"], 3, -2)


def test_positional_arguments_may_stand_in_the_file(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("results: r.json\ncoco: demo\ncategory_aware: true\n")
    config = configuration_of(monkeypatch, "evaluate", ["evaluate", "--config", str(file)])
    assert (config.results, config.category_aware) == (Path("r.json"), True)


@pytest.mark.parametrize("name", ["maskcut_dino_vits8", "maskcut_dino_vits8.yaml"])
def test_a_configuration_that_comes_with_the_package_has_a_name(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = configuration_of(monkeypatch, "maskcut", ["maskcut", "--config", name])
    assert config.model == "vit_small_patch8_224.dino"
    (tmp_path / name).write_text("model: mine\ncoco: demo\n")  # a file comes first
    assert configuration_of(monkeypatch, "maskcut", ["maskcut", "--config", name]).model == "mine"


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
    from crate_interp.weights import resolve_name

    config = configuration_of(monkeypatch, "maskcut", ["maskcut", "--config", str(file)])
    assert isinstance(config, COMMANDS["maskcut"].load())
    assert resolve_name(config.model).tag


@pytest.mark.parametrize(
    ("arguments", "then"),
    [
        (["models"], "the same command begins anew"),
        (["maskcut", "--model", "demo", "--coco", "demo"], "the same command goes on from here"),
        (["benchmark", "voc2012", "demo", "--model", "demo"], "the same command goes on from here"),
        (
            ["pca", "demo", "--model", "demo", "--output", "o.png"],
            "the same command goes on from here",
        ),
    ],
)
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_command_says_what_comes_next(arguments, then, name, code, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    command = "benchmark voc2012" if arguments[0] == "benchmark" else arguments[0]
    replace_command(monkeypatch, command, lambda _: signal.raise_signal(getattr(signal, name)))
    assert main(arguments) == code
    assert capsys.readouterr().err.endswith(f"; {then}\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_bug_is_one_line_and_its_traceback_a_file(monkeypatch, capsys, tmp_path):

    def fail(_):
        raise ZeroDivisionError("a\nbug \ud800" + "x" * 9999)

    replace_command(monkeypatch, "models", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["models"]) == 70
    error = one_line(capsys)
    assert error.startswith("error: this is a bug; the traceback is in ")
    (file,) = tmp_path.iterdir()
    assert str(file) in error
    assert "ZeroDivisionError" in error
    assert "in fail" in file.read_text()


def test_memory_that_is_not_enough_is_one_line(monkeypatch, capsys):

    def fail(_):
        raise MemoryError("Unable to allocate 7 TiB")

    replace_command(monkeypatch, "models", fail)
    assert main(["models"]) == 2
    assert one_line(capsys) == "error: the memory is not enough: Unable to allocate 7 TiB\n"


SPEAKING = """
import sys
from crate_interp.cli import main
from crate_interp.commands.models import Models
def run(_):
    print("caf\\u00e9 \\udcff")
    for _ in range(20000): print("a line")
    return 0
Models.run = run
sys.exit(main(["models"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes to break")
def test_output_that_nobody_reads_ends_the_command_silently():
    command = [sys.executable, "-c", SPEAKING]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"caf\\xe9 \\udcff\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_a_full_disk_is_one_line(monkeypatch, capsys):

    def write(_):
        raise OSError(28, "No space left on device", "runs/results.json")

    replace_command(monkeypatch, "models", write)
    assert main(["models"]) == 2
    error = capsys.readouterr().err
    assert error == "error: [Errno 28] No space left on device: 'runs/results.json'\n"
