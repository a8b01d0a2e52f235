"""Damage to JSON and YAML that knows their structure."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

from tests.fuzz.damage import Mutator

__all__ = ["JSON", "JSON_LINES", "LISTS", "NAMES", "YAML", "hostile", "mutate_value", "text_of"]

NAMES = (
    *("../others/secret.png", "/etc/passwd", "a\x00b", "x" * 300, "a\nb", "\u202egnp.a", ".", ""),
    *(
        "~",
        "con",
        "a/" * 200,
        "$HOME",
        "file:///etc/passwd",
        "http://localhost:9/x",
        "*.png",
        "a\\b",
    ),
)


class _Raw(str):
    """Stands for itself in a JSON text."""


def hostile(rng: random.Random) -> Any:
    """A value that is wrong in most places, or at the edge of what is right."""
    kinds = (
        lambda: rng.choice((None, True, False, "", [], {}, [[]], {"": ""}, [None])),
        lambda: rng.choice((0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**9, 10**6)),
        lambda: rng.choice((0.5, -0.0, 1e-320, 1e308, -1e9, 3.0, 1e9)),
        lambda: _Raw(rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "01", "+1", ".5"))),
        lambda: _Raw("1" + "0" * rng.choice((30, 400, 5000))),
        lambda: _Raw(rng.choice(('"\\ud800"', '"\\udfff\\ud800"', '"\x01"', '"\\x"', "'a'"))),
        lambda: _Raw("[" * rng.choice((40, 3000)) + "]" * 40),
        lambda: _Raw('{"a":' * 1100 + "1" + "}" * 1100),
        lambda: rng.choice(NAMES),
        lambda: "text" * rng.choice((1, 3000)),
        lambda: "\u2028\x1b[31m\u0085\u202e\U0001f600",
        lambda: [rng.choice((0, 1.5, "a", None))] * rng.choice((1, 2, 5, 1000)),
        lambda: str(rng.choice((1, 0.5, "true", "null"))),
    )
    return rng.choice(kinds)()


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Change one place of nested dictionaries and lists, or a few."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return hostile(rng)
        holder, key = rng.choice(places)
        _change(rng, holder, key)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each value's holder and its key; of long lists, the first ones and the last."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        numbers = range(len(value))
        pairs = [(n, value[n]) for n in (*numbers[:4], *numbers[4:][-1:])]
    else:
        return
    for key, below in pairs:
        yield value, key
        yield from _places(below)


def _change(rng: random.Random, holder: Any, key: Any) -> None:
    value = holder[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    action = rng.choice(
        ("hostile", "hostile", "hostile", "remove", "rename", "swap", "scale", "twice")
    )
    if action == "scale" and number:
        factor = rng.choice((-1, 0, 1e3, 1e6, 1e9, 1e15, 1e300, 0.1))
        changed = value * factor if abs(value) < 1e9 else value + 1
        integral = isinstance(value, int) and abs(changed) < 1e18
        holder[key] = rng.choice((changed, value + 1, int(changed) if integral else changed))
    elif action == "remove":
        del holder[key]
    elif action == "rename" and isinstance(holder, dict):
        holder[rng.choice((key.upper(), key + "_", "", "\ud800", "x" * 2000, "__class__"))] = value
        if rng.random() < 0.5:
            del holder[key]
    elif action == "swap":
        other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    elif action == "twice":
        holder[key] = (
            _Raw(f"{text_of(value)}, {text_of(key)}: {text_of(hostile(rng))}")
            if isinstance(holder, dict)
            else [value, value]
        )
    else:
        holder[key] = hostile(rng)


def text_of(value: Any) -> str:
    if isinstance(value, _Raw):
        return str.__str__(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text_of(str(k))}: {text_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text_of, value)) + "]"
    return json.dumps(value)


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    return text_of(mutate_value(rng, json.loads(content))).encode()


def mutate_json_text(rng: random.Random, content: bytes) -> bytes:
    """Keep the structure, change how it is written."""
    text = content.decode()
    return rng.choice(
        (
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + content,
            text.replace(":", "=", 1).encode(),
            text.replace('"', "'").encode(),
            b"[" + content + b"]",
            content + content,
            content.rstrip()[:-1],
            b'{"a": ' * 2000 + content + b"}" * 2000,
            text.replace('"', '"\\ud800', 3).encode(),
        )
    )


def mutate_lines(rng: random.Random, content: bytes) -> bytes:
    """Change one line of a file of JSON lines."""
    lines = content.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    other = rng.choice(lines)
    lines[number] = rng.choice(
        (
            mutate_json(rng, lines[number]) + b"\n",
            mutate_json(rng, lines[number]) + b"\n",
            mutate_json(rng, lines[number]) + b"\n",
            lines[number] * 2,
            other,
            b"\n",
            b"",
            lines[number][:-20],
        )
    )
    return b"".join(lines)


YAML_TEXTS = (
    *(
        "!!timestamp x",
        "!!float x",
        "!!int x",
        "!!binary x",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!null x",
    ),
    *("!!python/object/apply:os.system [touch here]", "!!python/name:os.system", "!x y", "*none"),
    *(
        "2024-01-01",
        "2024-13-41",
        "12:30:45",
        "0o17",
        "0x1F",
        "1_000",
        ".nan",
        "-.inf",
        "1e3",
        "yes",
    ),
    *(
        "&a [*a]",
        "&a {b: *a}",
        "null",
        "~",
        "[",
        "{",
        "'",
        '"\\ud800"',
        '"\\x00"',
        "|",
        ">",
        "? [a]",
    ),
    *(
        "[" * 60 + "]" * 60,
        "{a: " * 60 + "}" * 60,
        "1" + "0" * 5000,
        "1e9",
        "10000000000",
        "a: b: c",
    ),
    *(
        "&a [1,2,3,4,5,6,7,8]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]",
        "@a",
    ),
    *("<<: {a: 1}", "%TAG ! tag:x,2000:", "- a", "\t1", "# x", "{a, b}", "[a: 1]", "!!str 1"),
)


def mutate_yaml(rng: random.Random, content: bytes) -> bytes:
    """Change values, as JSON, which YAML contains."""
    value = mutate_value(rng, yaml.safe_load(content))
    if isinstance(value, dict):
        return "".join(f"{text_of(str(k))}: {text_of(v)}\n" for k, v in value.items()).encode()
    return text_of(value).encode()


def mutate_yaml_text(rng: random.Random, content: bytes) -> bytes:
    """Put something that only YAML has in the place of a line's value."""
    lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    key, _, _ = lines[number].partition(":")
    token = rng.choice(YAML_TEXTS)
    lines[number] = rng.choice(
        (
            f"{key}: {token}",
            f"{key}: {token}",
            f"{key}: {token}",
            token,
            f"{token}: {key}",
            lines[number] * 2,
        )
    )
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(("---", "...", "%YAML 9.9", "- a")))
    return "\n".join(lines).encode() + b"\n"


def alias_bomb(rng: random.Random, content: bytes) -> bytes:
    """Aliases of aliases of aliases, ten of each, beside the keys or as the value of one."""
    levels = rng.choice((3, 9, 30))
    steps = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        steps.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    if rng.random() < 0.3:
        return "\n".join(steps).encode() + b"\n" + content
    lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    value = f"{{{', '.join(steps)}}}" if rng.random() < 0.8 else "&a {b: {c: [*a, *a]}}"
    lines[number] = f"{lines[number].partition(':')[0]}: {value}"
    return "\n".join(lines).encode()


JSON: dict[str, Mutator] = {
    "json": mutate_json,
    "json ": mutate_json,
    "json text": mutate_json_text,
}
JSON_LINES: dict[str, Mutator] = {"line": mutate_lines}
YAML: dict[str, Mutator] = {
    "yaml": mutate_yaml,
    "yaml ": mutate_yaml,
    "yaml  ": mutate_yaml,
    "yaml   ": mutate_yaml,
    "yaml text": mutate_yaml_text,
    "yaml text ": mutate_yaml_text,
    "alias bomb": alias_bomb,
}


def mutate_names(rng: random.Random, content: bytes) -> bytes:
    """Change a line of a list of names."""
    lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    changed = (*NAMES, lines[number] + ".jpg", lines[0], "", " ", "\ud800", "\t".join(["a"] * 9))
    lines[number] = rng.choice(changed)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


LISTS: dict[str, Mutator] = {"names": mutate_names}
