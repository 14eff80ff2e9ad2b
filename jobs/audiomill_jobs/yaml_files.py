"""YAML files of options, read by the rules of YAML 1.2: `no` is Norwegian, `010` is ten, and a date is a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from audiomill.errors import UsageError

SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""What people write for an option that is on or off; elsewhere these words are texts."""


class WrittenInt(int):
    """A number that is its own text where a text is wanted."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """The same: `1.10` stays so."""

    written: str

    def __str__(self) -> str:
        return self.written


class _Loader(yaml.SafeLoader):
    """Safe, with the core schema of YAML 1.2 (yaml.org/spec/1.2.2, 10.3.2), and without keys that are given twice."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012


def _number(loader: _Loader, node: yaml.ScalarNode) -> WrittenInt | WrittenFloat:
    text = node.value
    if node.tag.endswith(":int"):
        base = {"0o": 8, "0x": 16}.get(text.lower()[:2], 10)
        written_int: WrittenInt | WrittenFloat = WrittenInt(text[2:] if base != 10 else text, base)
    else:
        written_int = WrittenFloat(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))
    written_int.written = text
    return written_int


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    texts = [str(key) for key in keys]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def yaml_mapping(path: str) -> dict[str, Any]:
    """The names and values of a YAML file, `-` in names turned into `_`.

    Raises:
        UsageError: no such file, or no YAML mapping.
    """
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"--config {path}: expected YAML, got: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"--config {path}: expected names and values, e.g. 'model: openai/whisper-tiny.en'")
    return {str(name).replace("-", "_"): value for name, value in loaded.items()}


def comma_separated(value: Any) -> Any:
    """`[6, 9]` -> `"6,9"`: lists in YAML are what commas are on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def switched(value: Any) -> bool | None:
    """The value of an option that is on or off; None for what means neither."""
    return SWITCHES.get(str(value).lower())
