"""Config dataclasses -> command-line options and back. Every default comes from `audiomill.config`."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable
from typing import Any

import click

from audiomill.config.defaults import FIRST
from audiomill.config.fields import T, build, common_names, flag, flat_fields
from audiomill.config.renamed import RENAMED_OPTIONS, with_new_options
from audiomill.errors import UsageError
from audiomill_jobs.yaml_files import comma_separated, switched, yaml_mapping

GROUPS = {
    "SpeakersConfig": "Speakers",
    "QualityConfig": "Quality",
    "PlanConfig": "Plan",
    "DecodeConfig": "Decoding",
    "SegmentConfig": "Segments",
    "ModelConfig": "Model",
    "TranscriptConfig": "Text",
    "EmbeddingsConfig": "Embeddings",
    "CodesConfig": "Codes",
    "KmeansConfig": "Codebook",
    "PicturesConfig": "Pictures",
    "EngineConfig": "Engine",
    "OutputConfig": "Output",
    "WatchConfig": "Watching",
    "TrainConfig": "Training",
    "UnitsConfig": "Training",
    "TrainOutputConfig": "Output",
    "SelectConfig": "Rules",
    "SelectOutputConfig": "Output",
    "SearchConfig": "Text",
    "RedecodeEngineConfig": "Engine",
    "RedecodeOutputConfig": "Output",
    "TuneConfig": "Search",
    "TunedConfig": "Text",
    "ProbeConfig": "Probe",
    "ProbeOutputConfig": "Output",
    "CopiesConfig": "Copies",
    "CopiesOutputConfig": "Output",
    "ForecastConfig": "Forecast",
    "ChunksConfig": "Chunks",
    "SourceConfig": "Audio",
}


class JsonMapping(click.ParamType[dict[str, Any]]):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            parsed = value if isinstance(value, dict) else json.loads(value)
        except ValueError as error:
            self.fail(
                f'expected a JSON object such as \'{{"endpoint_url": "http://localhost:9000"}}\', got {value!r} ({error})',
                param,
                ctx,
            )
        if not isinstance(parsed, dict):
            self.fail(f"expected a JSON object, got {type(parsed).__name__}", param, ctx)
        return parsed


class WithExamples(click.Command):
    """Help with its examples before the options, line by line as they are written; options of version 0.1 by their new names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {
            option.removeprefix("--")
            for param in self.get_params(ctx)
            for option in (*param.opts, *param.secondary_opts)
        }
        return super().parse_args(ctx, [_today(argument, names) for argument in args])

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.rstrip() + "\n")
        self.format_options(ctx, formatter)


def _today(argument: str, names: set[str]) -> str:
    """An argument, with the option's new name where it is an old one that the command does not have any more."""
    name, separator, value = argument.removeprefix("--").partition("=")
    negation = "no-" if name.startswith("no-") else ""
    new = RENAMED_OPTIONS.get(name.removeprefix("no-").replace("-", "_"))
    if not argument.startswith("--") or name in names or new is None or negation + flag(new) not in names:
        return argument
    note_renamed(f"--{name}", f"--{negation}{flag(new)}")
    return f"--{negation}{flag(new)}{separator}{value}"


def note_renamed(old: str, new: str) -> None:
    """Says on stderr what an old name is called now."""
    click.echo(f"note: {old} is called {new} now; the old name works in this version", err=True)


transcript_option = click.option(
    "--transcript",
    type=click.IntRange(1),
    default=FIRST,
    show_default=True,
    metavar="N",
    help="Which text, where several models of the job transcribe: 1 stands in segments, the others in transcripts.",
)


def _show_all(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        ctx.meta["help_all"] = True
        click.echo(ctx.get_help())
        ctx.exit()


class JobCommand(WithExamples):
    """A job whose options are the fields of a config: under the headings of their dataclass, the rare ones on request.

    Args:
        config: the job's dataclass.
    """

    def __init__(self, *args: Any, config: type, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings, self._common = headings(config), common_names(config)
        rare = {field.name for field in flat_fields(config)} - self._common
        if rare:
            message = f"Show {len(rare)} more options and exit."
            self.params.append(
                click.Option(
                    ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help=message
                )
            )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record, name = param.get_help_record(ctx), param.name or ""
            is_rare = name in self._headings and name not in self._common
            if record is not None and (ctx.meta.get("help_all") or not is_rare):
                grouped.setdefault(self._headings.get(name, "General"), []).append(record)
        for heading, records in sorted(grouped.items(), key=lambda pair: pair[0] != "Output" and pair[0] != "General"):
            with formatter.section(heading):
                formatter.write_dl(records)


def with_options(kind: type, config_option: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds an option for every field of a job config, and `--config FILE`."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        if config_option:
            function = click.option(
                "--config",
                "config_file",
                type=click.Path(dir_okay=False),
                help="YAML file with the same names as the options; flags override it.",
            )(function)
        for field in reversed(flat_fields(kind)):
            function = _option(field)(function)
        return function

    return add


def headings(kind: type) -> dict[str, str]:
    """Option name -> heading, by the dataclass that holds it."""
    results: dict[str, str] = {}
    for outer in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[outer.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            results.update({field.name: GROUPS[hint.__name__] for field in dataclasses.fields(hint)}, **headings(hint))
    return results


def config_from(kind: type[T], inputs: tuple[str, ...], config_file: str | None, flags: dict[str, Any]) -> T:
    """The job's configuration: defaults, then the YAML file, then flags.

    Raises:
        UsageError: the file cannot be read, or names what is no option.
    """
    values = _from_file(config_file, kind) if config_file else {}
    return merged(kind, values, inputs, flags)


def merged(kind: type[T], values: dict[str, Any], inputs: tuple[str, ...], flags: dict[str, Any]) -> T:
    """A configuration from a file's values and the flags, which win."""
    values = {**values}
    values.update({name: value for name, value in flags.items() if value is not None})
    if inputs:
        values["inputs"] = inputs
    if not values.get("inputs"):
        raise UsageError("INPUT is missing: name a file, folder, glob, shard or manifest")
    values["inputs"] = tuple(values["inputs"])
    return build(kind, values)


def _from_file(path: str, kind: type) -> dict[str, Any]:
    return checked_values(yaml_mapping(path), kind, path)


def checked_values(values: dict[str, Any], kind: type, path: str, where: str = "") -> dict[str, Any]:
    """Values of a YAML mapping, each checked and converted as its flag would be.

    Args:
        values: by option name.
        kind: config dataclass that has the options.
        path: of the file, for messages.
        where: part of the file, for messages.

    Raises:
        UsageError: a name that is no option, or a value of another type.
    """
    hints = {field.name: field for field in flat_fields(kind)}
    values = with_new_options(values, hints, lambda old, new: note_renamed(f"{path}: {where}{old}", new))
    for name in values:
        if name not in hints and name != "inputs":
            raise UsageError(f"{path}: {where}{name} is no option here; expected one of {', '.join(sorted(hints))}")
    if isinstance(values.get("inputs"), str):
        values = {**values, "inputs": [values["inputs"]]}
    return {
        name: value if name == "inputs" or value is None else _checked(name, value, hints[name], path)
        for name, value in values.items()
    }


def _checked(name: str, value: Any, field: dataclasses.Field[Any], path: str) -> Any:
    """A value of a YAML file, converted as its flag would be."""
    kind = _click_type(field)
    try:
        if isinstance(kind, JsonMapping):
            return kind.convert(value, None, None)
        if kind is not bool:
            return click.types.convert_type(kind).convert(_plain(comma_separated(value), kind), None, None)
        switch = switched(value)
        if switch is None:
            raise click.BadParameter(f"expected true or false, got {value!r}")
        return switch
    except click.BadParameter as error:
        raise UsageError(f"--config {path}: {flag(name)}: {error.message}") from error


def _plain(value: Any, kind: Any) -> Any:
    """As the command line has it: numbers are plain ones, and texts are what was written."""
    if isinstance(value, dict):
        raise click.BadParameter(f"expected a value, got names and values: {value!r}")
    if kind in (int, float):
        return value if isinstance(value, bool | str) else float(value) if kind is float else value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain_type(field: dataclasses.Field[Any]) -> Any:
    module_types = {"str": str, "int": int, "float": float, "bool": bool}
    text = str(field.type).split("|")[0].strip()
    return module_types.get(text, dict)


def _click_type(field: dataclasses.Field[Any]) -> Any:
    if field.metadata["choices"]:
        return click.Choice(field.metadata["choices"])
    plain = _plain_type(field)
    return JsonMapping() if plain is dict else plain


def _option(field: dataclasses.Field[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name, kind = flag(field.name), _click_type(field)
    help_text = field.metadata["help"]
    default = None if field.default is dataclasses.MISSING else field.default
    if kind is bool:
        is_on = default is True
        names = f"--{name}/--no-{name}" if is_on else f"--{name}"
        return click.option(
            names, field.name, is_flag=True, default=None, help=help_text + (" [default: on]" if is_on else "")
        )
    shown = f"{default:g}" if isinstance(default, float) else "" if default is None else default
    if shown or field.metadata["otherwise"]:
        help_text += f" [default: {field.metadata['otherwise'] or shown}]"
    if field.metadata["several"]:
        return click.option(
            f"--{name}",
            field.name,
            multiple=True,
            metavar="TEXT",
            help=help_text,
            callback=lambda _, __, all: ",".join(all) or None,
        )
    metavar = "JSON" if isinstance(kind, JsonMapping) else {str: "TEXT", int: "N", float: "X"}.get(kind)
    return click.option(f"--{name}", field.name, type=kind, default=None, metavar=metavar, help=help_text)
