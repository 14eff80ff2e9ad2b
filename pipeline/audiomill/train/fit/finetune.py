"""The finetune job: inputs -> clips with labels -> a trained checkpoint, on one device or many; goes on after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from audiomill.config.train import FinetuneConfig, TrainOutputConfig
from audiomill.errors import RunError, UsageError
from audiomill.models.device import resolve_device
from audiomill.models.family import objectives
from audiomill.models.learner import Learner
from audiomill.models.locate import local_path
from audiomill.models.new_models.named import is_new
from audiomill.train.clips import DROPPED, Clips, Dropped, Source, drop_counts, prepare
from audiomill.train.fit.checkpoint_sync import Mirror, local_folder_of, mirror_of
from audiomill.train.fit.launch import Training, launch, load_learner
from audiomill.train.fit.metrics_history import nothing_learnt, read_metrics
from audiomill.train.fit.output_lock import LOCK, claim, clear_training, fields_of, locked
from audiomill.train.fit.processes import Worker, first_alone
from audiomill.train.fit.same_data import check_same_data
from audiomill.train.fit.start import start_of, with_defaults
from audiomill.train.page import training_charts, training_page

Report = dict[str, Any]
DROPPED_NAME = "dropped.parquet"
UNSCORED = ("empty_text", "no_language", "unknown_language")
"""What no model could write: such dev clips are dropped too."""


def train_model(config: FinetuneConfig, console: Console) -> Report:
    """Trains a checkpoint; the same call again goes on where it was, or does nothing.

    Args:
        config: the job.
        console: for progress.

    Returns:
        What was trained on, for how long, and the WER on the dev clips; also OUTPUT/result.json.

    Raises:
        UsageError: inputs, model or options cannot be used, or every clip was dropped.
        RunError: the loss is not a number any more.
    """
    return carried_out(
        config.output, config.plan.storage_options, config.train.device, console, partial(_prepared, config)
    )


class PreparedTraining(NamedTuple):
    """What is to be trained. `description`: of it, for the report."""

    training: Training
    learner: Learner
    dropped: Sequence[Dropped]
    description: Report


def carried_out(
    config: TrainOutputConfig,
    options: dict[str, Any],
    device: str,
    console: Console,
    prepare: Callable[[Path, Console], Report | PreparedTraining],
) -> Report:
    """A job that trains, from its output's place to its report; in one process, or as one of those that torchrun started.

    Args:
        config: of the output.
        options: of its storage.
        device: as it was asked for.
        console: for progress.
        prepare: from the local folder and a console what is to be trained, or the report of a run that is done.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        from audiomill.train.fit.processes import join_group

        with join_group(device) as worker:
            return _carried_out(config, options, console, prepare, worker)
    return _carried_out(config, options, console, prepare, None)


def _carried_out(
    config: TrainOutputConfig,
    options: dict[str, Any],
    console: Console,
    prepare: Callable[[Path, Console], Report | PreparedTraining],
    worker: Worker | None,
) -> Report:
    """`worker`: which of the processes that torchrun started this is, None otherwise."""
    is_first = worker is None or worker.is_first
    output, mirror = local_folder_of(config.output, options), mirror_of(config.output, options)
    quiet = Console(quiet=True) if config.quiet or not is_first else console
    with locked(output) if is_first else contextlib.nullcontext():
        with first_alone(worker):  # the others find everything decoded
            begin(output, mirror, is_first, config.overwrite)
            result = prepare(output, quiet)
            if isinstance(result, PreparedTraining) and is_first:
                check_same_data(output, result.training.train, result.training.dev)
            if mirror is not None and is_first:
                mirror.push()  # before the others look there
        if isinstance(result, dict):
            return result if is_first else {}
        launch(result.training, result.learner, worker)
        if not is_first:
            return {}
        return {**ended(result.training, result.dropped, output, result.description), "is_new": True}


def _prepared(config: FinetuneConfig, output: Path, quiet: Console) -> Report | PreparedTraining:
    """What is to be trained, or the report of a run that is done."""
    train = dataclasses.replace(config.train, from_scratch=config.train.from_scratch or is_new(config.train.model))
    resolve_device(train.device)  # tells what is missing before anything is decoded
    path, objective, identity = start_of(train, config.plan.storage_options)
    train = with_defaults(train, objective)
    if train.lm is not None and "://" in train.lm:  # with the options that its storage needs
        train = dataclasses.replace(train, lm=str(local_path(train.lm, config.plan.storage_options)))
    output.mkdir(parents=True, exist_ok=True)
    is_new_folder = not (output / "run.json").exists()
    claim(output, fields_of(config, identity))
    if (output / "result.json").exists():
        return {**json.loads((output / "result.json").read_text()), "is_new": False}
    sources = _sources(config, objective)
    quiet.print(f"decoding {', '.join(source.role for source in sources)} clips", highlight=False)
    clips, dropped = prepare(
        sources, output / "clips", config.decode, config.plan, train.max_clip_seconds, train.min_clip_seconds
    )
    together = Clips(
        output / "clips", pa.concat_tables([clips[role].table for role in ("train", "pseudo") if role in clips])
    )
    training = Training(
        train, str(output / "clips"), str(path), objective, str(output), together.table, together.table,
        clips["dev"].table if "dev" in clips else None, config.plan.storage_options, config.output.quiet, config.output.output,
    )  # fmt: skip
    with given_back(output, is_new_folder):
        learner = load_learner(training, resolve_device(train.device))
        training, lost = _learnable(training, learner)
        dropped += lost
        table = pa.Table.from_pylist([each._asdict() for each in dropped], schema=DROPPED)
        pq.write_table(table, output / DROPPED_NAME)
        _check_left(training, dropped)
    for note in learner.notes:
        quiet.print(f"note: {note}", highlight=False, soft_wrap=True)
    pq.write_table(training.train, output / "clips.parquet")
    quiet.print(_heard_line(training, dropped), highlight=False, soft_wrap=True)
    return PreparedTraining(training, learner, dropped, {})


@contextlib.contextmanager
def given_back(output: Path, was_new: bool) -> Iterator[None]:
    """Clears a folder that was new where settings turn out to be of no use: it belongs to none of them. What was dropped stays to be
    looked at."""
    try:
        yield
    except UsageError:
        for path in output.iterdir() if was_new else ():
            if path.name == LOCK:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != DROPPED_NAME:
                path.unlink()
        raise


def begin(output: Path, mirror: Mirror | None, is_first: bool, overwrite: bool) -> None:
    """Clears the output where it is to start anew, else fetches what its URL has of it."""
    if overwrite and is_first:
        clear_training(output)
        if mirror is not None:
            mirror.remove()
    elif mirror is not None:
        mirror.pull(is_first)


def ended(training: Training, dropped: Sequence[Dropped], output: Path, extra: Report) -> Report:
    """Writes the report of a training that is done, with what else is to be told of it, and forgets what only it needed."""
    report = {**_result(training, dropped, output), **extra}
    (output / "result.json").write_text(json.dumps(report, indent=1))
    shutil.rmtree(output / "clips")
    shutil.rmtree(output / "state", ignore_errors=True)
    if (mirror := training.mirror()) is not None:
        mirror.push()
    return report


def _sources(config: FinetuneConfig, objective: str) -> list[Source]:
    train, needs_text = config.train, objectives()[objective].needs_text
    if train.dev and not needs_text:
        raise UsageError("--dev: pretraining writes no text that could be scored; leave it out")
    sources = [Source(role="train", inputs=config.inputs, needs_text=needs_text)]
    if train.pseudo:
        sources.append(
            Source(role="pseudo", inputs=_several(train.pseudo), weight=train.pseudo_weight, needs_text=needs_text)
        )
    if train.dev and needs_text:
        sources.append(Source(role="dev", inputs=_several(train.dev)))
    return sources


def _several(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _learnable(training: Training, learner: Learner) -> tuple[Training, list[Dropped]]:
    """The training without the clips that its learner cannot learn from."""
    dropped: list[Dropped] = []
    tables: dict[str, pa.Table | None] = {}
    for role, table in (("train", training.train), ("dev", training.dev)):
        if table is None:
            tables[role] = None
            continue
        clips = Clips(Path(training.folder), table)
        labels = learner.labels(clips.labelled_texts(training.config.language), clips.num_samples)
        for row, label in zip(table.to_pylist(), labels, strict=True):
            if isinstance(label, str) and (role == "train" or label in UNSCORED):
                detail = _outcome(label, row["language"] if label.endswith("_language") else row["text"])
                dropped.append(Dropped(row["id"], row["source"], row["member"], row["role"], label, detail))
        keeps = [not isinstance(label, str) or (role == "dev" and label not in UNSCORED) for label in labels]
        tables[role] = clips.only(keeps).table
    return dataclasses.replace(training, train=tables["train"], dev=tables["dev"]), dropped


def _outcome(reason: str, result: str | None) -> str:
    expected = {
        "empty_text": "expected letters in the text",
        "unknown_characters": "expected characters of the model's vocabulary (--vocabulary labels makes a new one)",
        "audio_shorter_than_text": "expected a frame of audio for each token",
        "text_too_long": "expected fewer tokens than the decoder can write",
        "longer_than_window": "expected a clip that the encoder sees at once (30 s, at the slowest speed)",
        "too_short": "expected enough frames to hide some",
        "no_language": "expected a language in the manifest (or --language)",
        "unknown_language": "expected a language that the checkpoint knows, or the training clips have",
    }
    return f"{expected[reason]}, got {result!r}"


def _check_left(training: Training, dropped: Sequence[Dropped]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in drop_counts(dropped).items())
    if not training.train.num_rows:
        raise UsageError(
            f"nothing to train on: every clip was dropped ({reasons}); see {training.output}/dropped.parquet"
        )
    if training.dev is not None and not training.dev.num_rows:
        raise UsageError(f"--dev: every clip was dropped ({reasons}); see {training.output}/dropped.parquet")


def _heard_line(training: Training, dropped: Sequence[Dropped]) -> str:
    clips = Clips(Path(training.folder), training.train)
    reasons = "".join(f", {count} {reason}" for reason, count in drop_counts(dropped).items())
    dev = "" if training.dev is None else f", {training.dev.num_rows} dev clips"
    return f"training on {len(clips)} clips, {clips.seconds / 3600:.2f} h{dev}; dropped {len(dropped)}{reasons}"


def _result(training: Training, dropped: Sequence[Dropped], output: Path) -> Report:
    done = output / "state" / "done.json"
    if not done.exists():
        raise RunError(f"{output}: no worker finished; run the same command again to go on from the last state")
    progress, rows = json.loads(done.read_text()), read_metrics(output)
    clips = training.examples(training.train)
    roles = training.train.column("role").to_pylist() if "role" in training.train.column_names else ()
    report = {
        "objective": training.objective,
        "num_clips": len(clips),
        "num_pseudo": sum(role == "pseudo" for role in roles),
        "hours": clips.seconds / 3600,
        "num_updates": progress["num_updates"],
        "best_dev_wer": progress["best_wer"],
        "last_dev_wer": progress["dev_wer"],
        "dropped": drop_counts(dropped),
        "seed": training.config.seed,
        "nothing_learnt": nothing_learnt(rows),
        **_codebook_health(rows),
    }
    (output / "report.html").write_text(training_page(report, training_charts(rows), rows))
    return report


def _codebook_health(rows: Sequence[dict[str, Any]]) -> Report:
    """Of training without text: how many entries of the codebooks were in use at the end, how often the right one was told."""
    last: Report = next((row for row in reversed(rows) if "loss" in row), {})
    report: Report = {"accuracy": last["accuracy"]} if "accuracy" in last else {}
    if "perplexity" in last:
        report |= {"codebook_perplexity": last["perplexity"], "collapsed": bool(last["collapsed"])}
    return report


def training_lines(report: Report, output: str) -> list[str]:
    """The end of a training, for people."""
    output = output.rstrip("/")
    if not report["is_new"]:
        return [
            f"{output}: nothing to do, already trained for {report['num_updates']} updates (--overwrite starts anew)"
        ]
    wer = "" if report["best_dev_wer"] is None else f", best dev WER {100 * report['best_dev_wer']:.2f}%"
    lines = [
        f"trained on {report['num_clips']} clips ({report['num_pseudo']} pseudo-labelled), {report['hours']:.2f} h, "
        f"{report['num_updates']} updates{wer}",
        f"checkpoint: {output}/checkpoint (use it as --model); curves: {output}/report.html, {output}/tensorboard",
    ]
    if "accuracy" in report:
        lines.append(f"told right at the end: {100 * report['accuracy']:.1f}%")
    if "codebook_perplexity" in report:
        warning = ": collapsed, lower --learning-rate or raise --batch-seconds" if report["collapsed"] else ""
        lines.append(f"codebook perplexity at the end: {report['codebook_perplexity']:.1f}{warning}")
    if report["nothing_learnt"]:
        lines.append(f"warning: {report['nothing_learnt']}; more labels or updates, or another --learning-rate")
    if report["dropped"]:
        lines.append("dropped: " + ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items()))
    return lines
