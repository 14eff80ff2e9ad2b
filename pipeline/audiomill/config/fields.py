"""How a config dataclass carries its options: help, choices, checks; and how one is built from flat names."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import numbers
import os
import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, TypeVar

from audiomill.config.renamed import with_new_options
from audiomill.errors import UsageError

T = TypeVar("T")


def option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] = (),
    settled: tuple[str, ...] = (),
    results: bool = False,
    several: bool = False,
    otherwise: str = "",
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        default: its value when nothing is said.
        help_text: what the option does, for `--help`.
        choices: allowed values, if few.
        settled: values that a run puts in the place of a choice, and that its workers are told.
        results: True when another value gives other output rows.
        several: the flag may be given several times; values are joined by commas.
        otherwise: what happens where the default is None, for `--help`.
    """
    metadata = {
        "help": help_text,
        "choices": choices,
        "settled": settled,
        "results": results,
        "several": several,
        "otherwise": otherwise,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Validated:
    """Checks choices on construction; subclasses add their own rules in `check`.

    `COMMON`: options that `--help` shows, the others come with `--help-all`; None: all are common.
    """

    COMMON: ClassVar[tuple[str, ...] | None] = None

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            choices, value = each.metadata.get("choices"), getattr(self, each.name)
            if choices and value not in (*choices, *each.metadata["settled"]):
                raise UsageError(f"--{flag(each.name)} {value}: expected one of {', '.join(choices)}")
        self.check()

    def check(self) -> None:
        """Rules beyond choices; raises UsageError."""

    def require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"--{flag(name)} {value}: expected a number above 0")


def flag(name: str) -> str:
    """`part_seconds` -> `part-seconds`."""
    return name.replace("_", "-")


def result_fields(config: Any) -> dict[str, Any]:
    """Fields that change what comes out, by flag name, of a job config and its parts."""
    results: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            results.update(result_fields(value))
        elif each.metadata.get("results"):
            results[flag(each.name)] = value
    return results


def digest(fields: dict[str, Any]) -> str:
    """Short hash of a JSON-able mapping; equal mappings give equal digests."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of a config dataclass, nested ones included, from flat field names.

    Args:
        kind: a config dataclass.
        values: field name -> value; names that `kind` lacks are ignored, absent ones take their default.
    """
    chosen: dict[str, Any] = {}
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        nested = _nested_kind(kind, each.name)
        if nested is not None:
            chosen[each.name] = build(nested, values)
        elif each.name in values:
            chosen[each.name] = values[each.name]
    return kind(**chosen)


def differing(before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Names of settings that are not what they were. One that did not exist then is at its default no other setting.

    Args:
        before: by flag name, as an output keeps them.
        now: as asked for.
        defaults: of options, by flag name.
    """

    def has_changed(name: str) -> bool:
        if name not in before:
            return name not in defaults or now[name] != defaults[name]
        if name not in now:
            return name not in defaults or before[name] != defaults[name]
        one, two = before[name], now[name]
        if isinstance(one, dict) and isinstance(two, dict):
            return bool(differing(one, two, defaults))
        return bool(one != two)

    return [name for name in sorted(before.keys() | now.keys()) if has_changed(name)]


def defaults_of(*kinds: type) -> dict[str, Any]:
    """Defaults of the options of config dataclasses, by flag name."""
    return {
        flag(flat_field.name): flat_field.default
        for kind in kinds
        for flat_field in flat_fields(kind)
        if flat_field.default is not dataclasses.MISSING
    }


def typed(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Options given from Python, each as its field has it: lists joined by commas, paths as texts.

    Args:
        kind: a job's config dataclass.
        values: by field name.

    Raises:
        UsageError: a name that is no option, or a value of another type.
    """
    fields = {field.name: field for field in flat_fields(kind)}
    values = with_new_options(values, fields, _warn_renamed)
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(sorted(fields))}"
            raise UsageError(f"{name} is no option here; {hint}")
    return {name: _typed(name, value, str(fields[name].type)) for name, value in values.items()}


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(f"{old} is called {new} now; the old name works in this version", FutureWarning, stacklevel=5)


def _typed(name: str, value: Any, type_name: str) -> Any:
    plain, _, rest = (part.strip() for part in type_name.partition("|"))
    if value is None and "None" in rest:
        return None
    if isinstance(value, (list, tuple)) and plain == "str":
        return ",".join(str(_typed(name, each, plain)) for each in value)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if plain == "str" and (isinstance(value, (str, os.PathLike)) or is_number):
        return str(value)
    if plain == "bool" and isinstance(value, bool):
        return value
    if plain == "float" and is_number:
        return float(value)
    if plain == "int" and is_number and int(value) == value:
        return int(value)
    if plain not in ("str", "bool", "float", "int") and isinstance(value, (Mapping, list, tuple)):
        return value
    expected = {"str": "a text", "bool": "True or False", "float": "a number", "int": "a whole number"}
    raise UsageError(
        f"{name}={str(value)[:80]!r}: expected {expected.get(plain, 'names and values')}, got {type(value).__name__}"
    )


def flat_fields(kind: type) -> list[dataclasses.Field[Any]]:
    """Every option field of a job config, a class's own before those it inherits, nested dataclasses opened; without those in
    its `LEFT_OUT`."""
    fields: list[dataclasses.Field[Any]] = []
    names = list(inspect.get_annotations(kind))
    for each in sorted(
        dataclasses.fields(kind), key=lambda each: names.index(each.name) if each.name in names else len(names)
    ):
        nested = _nested_kind(kind, each.name)
        if nested is not None:
            fields.extend(flat_fields(nested))
        elif each.metadata:
            fields.append(each)
    return [each for each in fields if each.name not in getattr(kind, "LEFT_OUT", ())]


def common_names(kind: type) -> set[str]:
    """Names of the option fields of a job config that a first look should show."""
    results: set[str] = set()
    for each in dataclasses.fields(kind):
        nested = _nested_kind(kind, each.name)
        if nested is not None:
            results |= common_names(nested)
        elif each.metadata and each.name in (getattr(kind, "COMMON", None) or (each.name,)):
            results.add(each.name)
    return results


def _nested_kind(kind: type, name: str) -> type | None:
    import typing

    hint = typing.get_type_hints(kind)[name]
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None
