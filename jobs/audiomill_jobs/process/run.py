"""audiomill run: several models and outputs of one job, behind one read and decode."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from audiomill.config.fields import T, build
from audiomill.config.jobs import ModelTask, RunConfig
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import UsageError
from audiomill_jobs.options import JobCommand, checked_values, merged, with_options
from audiomill_jobs.telling import run_and_report
from audiomill_jobs.yaml_files import comma_separated, yaml_mapping

if TYPE_CHECKING:
    from audiomill.tables.output import Output

EXAMPLES = """\
Example of a job.yaml:
  inputs: [recordings/]
  output: out/
  models:
    - model: facebook/wav2vec2-base-960h          # everything of one model comes from one forward pass
      transcripts: true
      embeddings: {layers: "9", pool: mean}
      codes: [km500.safetensors, quantizer=facebook/wav2vec2-base]
    - model: facebook/hubert-base-ls960
      codes: {codebook: km100.safetensors, deduplicate: true}
Other options stand beside `inputs`, by the names of the flags; flags override them.
"""


def _tables_by_name() -> Sequence[Output]:
    """Tables that a YAML file asks for by their names."""
    from audiomill.tables.outputs import OUTPUTS

    return [output for output in OUTPUTS if output.config is not None]


@click.command("run", cls=JobCommand, config=RunConfig, epilog=EXAMPLES)
@click.argument("job_file", metavar="JOB.YAML", type=click.Path(dir_okay=False))
@click.argument("inputs", nargs=-1, metavar="[INPUT...]")
@with_options(RunConfig, config_option=False)
def run(job_file: str, inputs: tuple[str, ...], **flags: Any) -> int:
    """Run several models and outputs behind one read and decode.

    JOB.YAML lists the models and what is wanted of each: transcripts, embeddings, codes. The tables share segment
    ids. Of several models that transcribe, the first one's texts stand in segments, the others' in transcripts. Beside
    Whisper, a CTC model also tells when its words were said (`align: true` if nothing else is wanted of it).
    """
    values = yaml_mapping(job_file)
    models = values.pop("models", None)
    tasks = tasks_of(models, job_file)
    config = merged(RunConfig, checked_values(values, RunConfig, job_file), inputs, flags)
    return run_and_report(config.job(tasks))


def tasks_of(models: Any, path: str) -> list[ModelTask]:
    """The list `models` of a YAML file.

    Raises:
        UsageError: no such list, or an entry that cannot be understood.
    """
    if not isinstance(models, list) or not models:
        raise UsageError(f"{path}: expected `models:` with a list of models and what is wanted of each")
    return [_task(each, path, f"models.{number}.") for number, each in enumerate(models)]


def _task(given: Any, path: str, where: str) -> ModelTask:
    """One entry of `models`."""
    if not isinstance(given, dict) or "model" not in given:
        raise UsageError(f"{path}: {where[:-1]}: expected a mapping with `model:` and what is wanted of it")
    values = {str(name).replace("-", "_"): value for name, value in given.items()}
    text, aligns = values.pop("transcripts", None), values.pop("align", None)
    text = True if text == {} else text  # wanted, with nothing said about it
    wanted = {output.name: values.pop(output.name, None) for output in _tables_by_name()}
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(ModelConfig)})
    if unknown:
        known = ["transcripts", "align", *wanted, *(field.name for field in dataclasses.fields(ModelConfig))]
        raise UsageError(f"{path}: {where}{unknown[0]} is no option here; expected one of {', '.join(known)}")
    if not (text or aligns or any(wanted.values())):
        raise UsageError(
            f"{path}: {where[:-1]}: expected `transcripts`, `{'`, `'.join(wanted)}` or `align` for {given['model']}"
        )
    return ModelTask(
        model=build(ModelConfig, checked_values(values, ModelConfig, path, where)),
        transcripts=_several(text, TranscriptConfig, path, f"{where}transcripts.", "")[0] if text else None,
        tables={
            output.name: tuple(
                _several(wanted[output.name], output.config, path, f"{where}{output.name}.", output.shorthand)
            )
            for output in _tables_by_name()
            if output.config is not None
        },
        aligns=None if aligns is None else bool(aligns),
    )


def _several(given: Any, kind: type[T], path: str, where: str, shorthand: str) -> list[T]:
    """Configs from `true`, a mapping, a list of them, or plain values of the option `shorthand`."""
    results = []
    for each in given if isinstance(given, list) else [given] if given else []:
        values = {} if each is True else each if isinstance(each, dict) else {shorthand: str(each)}
        named = {str(name).replace("-", "_"): comma_separated(value) for name, value in values.items()}
        results.append(build(kind, checked_values(named, kind, path, where)))
    return results
