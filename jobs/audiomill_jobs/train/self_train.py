"""audiomill self-train: rounds of label, select, train, score and promote."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from audiomill.config.select import SelectConfig
from audiomill.config.train import LoopConfig, TrainConfig
from audiomill.errors import UsageError
from audiomill.models.new_models.named import SCHEME, is_new
from audiomill_jobs.options import WithExamples, checked_values
from audiomill_jobs.telling import quiet_libraries
from audiomill_jobs.yaml_files import yaml_mapping

EXAMPLES = """\
Example of a job.yaml:
  output: loop/
  labelled: [labelled.jsonl]
  unlabelled: [s3://radio/shards]
  dev: [dev.jsonl]                 # stops trainings, calibrates what is expected of a label
  test: [test.jsonl]               # frozen: decides on promotions, never trained on
  loop: {rounds: 3, level: 0.05}
  label: {consistency_samples: 3, beam_size: 16, lm: news.arpa}
  select: {max_expected_wer: 0.1, budget: 500h}
  train: {model: facebook/wav2vec2-base, epochs: 30, batch_seconds: 200}
With `student: seq2seq` students are Transformers on log-mels; `student: {objective: seq2seq, model: new://seq2seq-small, epochs: 60}`
says more. `loop: {tune_trials: 40}` finds the weights of label.lm and label.rescore_model on dev before each labelling.
Without `labelled` the teacher is the model as it is, such as a Whisper that is to learn a domain.
The names in a section are those of the options of transcribe (label), select and finetune (train, student).
"""
FIXED = (
    ("model", "label"), ("dev", "train"), ("pseudo", "train"), ("seed", "train"),
    ("dev", "student"), ("pseudo", "student"), ("seed", "student"),
)  # fmt: skip
"""Options of sections that the loop sets."""
INPUTS = ("labelled", "unlabelled", "dev", "test")


@click.command("self-train", cls=WithExamples, epilog=EXAMPLES)
@click.argument("job_file", metavar="JOB.YAML", type=click.Path(dir_okay=False))
@click.option("--output", help="Local folder of the loop, instead of the file's.")
@click.option(
    "--rounds", type=int, metavar="N", help="Rounds at most, instead of the file's; may grow on a loop that ended."
)
@click.option("--quiet", is_flag=True, help="One line a round.")
@click.option("--verbose", is_flag=True, help="Show what the libraries say.")
def self_train(job_file: str, output: str | None, rounds: int | None, quiet: bool, verbose: bool) -> None:
    """Improve a model with audio that nobody labelled.

    Round 0 trains a teacher on the labels. Each round then labels the unlabelled audio, selects labels to trust, trains a
    student on both, and promotes it only if it is better on the test set by more than chance; else it is rolled back. The
    same command again goes on where a killed loop was. OUTPUT/report.html tells the story.
    """
    from audiomill.train.loop import self_training as job
    from audiomill.train.loop.labelling import Labelling
    from audiomill.train.loop.verdicts import best_of, why_ended

    values = yaml_mapping(job_file)
    sections = {
        name: _section(values.pop(name, None), kind, job_file, name) for name, kind in _kinds(Labelling).items()
    }
    if output is not None:
        values["output"] = output
    if rounds is not None:
        sections["loop"]["rounds"] = rounds
    config = job.round_config({**_checked(values, job_file, _starts_anew(sections["train"])), "quiet": quiet}, sections)
    with quiet_libraries(verbose):
        result = job.run_self_training(config, Console(stderr=True))
    best, alone = best_of(result), next((each for each in result if each["training"]), result[0])
    click.echo(f"stopped: {why_ended(result, config.loop)}")
    click.echo(
        f"best: round {best['round']}, test WER {100 * best['wer']:.2f}% (labels alone: {100 * alone['wer']:.2f}%); "
        f"checkpoint: {best['checkpoint']}; report: {config.output}/report.html"
    )


_SEQ2SEQ = "seq2seq"


def _starts_anew(train: dict[str, Any]) -> bool:
    """Whether the teacher knows nothing before it has learnt."""
    return bool(train.get("from_scratch")) or is_new(str(train.get("model", "")))


def _kinds(labelling: type) -> dict[str, type]:
    return {
        "loop": LoopConfig,
        "label": labelling,
        "select": SelectConfig,
        "train": TrainConfig,
        "student": TrainConfig,
    }


def _section(given: Any, kind: type, path: str, name: str) -> dict[str, Any]:
    if given is None:
        return {}
    if name == "student" and given == _SEQ2SEQ:
        return {"objective": _SEQ2SEQ, "model": f"{SCHEME}{_SEQ2SEQ}"}
    if not isinstance(given, dict):
        raise UsageError(f"{path}: {name}: expected names and values, got {given!r}")
    values = {str(key).replace("-", "_"): value for key, value in given.items()}
    for fixed, where in FIXED:
        if name == where and fixed in values:
            raise UsageError(f"{path}: {name}.{fixed} is set by the loop; leave it out (the seed is loop.seed)")
    return checked_values(values, kind, path, f"{name}.")


def _checked(values: dict[str, Any], path: str, from_scratch: bool) -> dict[str, Any]:
    """Inputs and output, each there and of the right form."""
    unknown = sorted(values.keys() - {*INPUTS, "output"})
    if unknown:
        raise UsageError(
            f"{path}: {unknown[0]} is no option here; expected output, {', '.join(INPUTS)}, loop, label, select, train or student"
        )
    results: dict[str, Any] = {}
    for name in INPUTS:
        given = values.get(name)
        if name == "labelled" and given is None and not from_scratch:
            results[name] = ()
            continue
        listed = [given] if isinstance(given, str) else given
        if not isinstance(listed, list) or not listed:
            raise UsageError(f"{path}: {name}: expected inputs, e.g. [{name}.jsonl]")
        results[name] = tuple(str(each) for each in listed)
    if not values.get("output") or "://" in str(values["output"]):
        raise UsageError(f"{path}: output: expected a local folder, e.g. loop/")
    return {**results, "output": str(values["output"])}
