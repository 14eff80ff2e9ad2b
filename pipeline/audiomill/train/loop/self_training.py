"""Rounds of label -> select -> train -> score -> promote. Every step can be killed and goes on where it was.

OUTPUT/loop.json            the settings that claimed the folder
OUTPUT/inputs.parquet       the recordings of each role, to notice what changes
OUTPUT/round--1/            the model to start from, where it writes texts: what the teacher must not be worse than
OUTPUT/round-0/             the teacher, trained on the labels alone
OUTPUT/round-N/tuning/      dev posteriors of the teacher, and the weights found on them (with loop.tune_trials)
OUTPUT/round-N/labels/      what the teacher wrote of the unlabelled audio
OUTPUT/round-N/selection/   pseudo-labels (see `audiomill.train.select.selection`)
OUTPUT/round-N/training/    the student (see `audiomill.train.fit.finetune`)
OUTPUT/round-N/dev/, test/  what the student wrote there
OUTPUT/round-N/config.json, lineage.parquet, metrics.json (last)
OUTPUT/best/                names the round that is best, report.html

Source: Xu et al. 2020, "Self-training and Pre-training are Complementary for Speech Recognition" (arXiv:2010.11430).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.output_jobs import RedecodeEngineConfig, RedecodeOutputConfig, TuneConfig, TuneJobConfig
from audiomill.config.run import OutputConfig
from audiomill.config.select import SelectConfig, SelectJobConfig, SelectOutputConfig
from audiomill.config.stages import ModelConfig
from audiomill.config.text import SearchConfig
from audiomill.config.train import FinetuneConfig, LoopConfig, TrainConfig, TrainOutputConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint
from audiomill.models.family import POSTERIORS, TEXT, objectives
from audiomill.models.new_models.named import is_new
from audiomill.runs.job import run_job
from audiomill.runs.posteriors.tune import tuned
from audiomill.train.fit.finetune import train_model
from audiomill.train.loop.labelling import Labelling, read_by
from audiomill.train.loop.loop_inputs import changed_inputs, check_inputs, seen_inputs, write_lineage
from audiomill.train.loop.verdicts import best_of, decided, round_line, scored, takes_over, why_ended
from audiomill.train.select.selection import select_labels

_Metrics = dict[str, Any]
ROLES = ("labelled", "unlabelled", "dev", "test")
BASELINE = -1
"""The round of the model to start from."""
POSTERIORS_KEPT = 32
"""Tokens a frame that weights are found on."""


@dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """A loop. `labelled`, `dev`, `test`: audio with text; without `labelled` the teacher is the model as it is;
    `unlabelled`: its texts, if any, are never looked at; `student`: how students are trained that are of another kind than the
    first teacher, such as a Transformer on log-mels; None: as `train` says."""

    output: str
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    loop: LoopConfig = LoopConfig()
    label: Labelling = Labelling()
    select: SelectConfig = SelectConfig()
    train: TrainConfig = TrainConfig()
    student: TrainConfig | None = None
    quiet: bool = False


def run_self_training(config: SelfTraining, console: Console) -> list[_Metrics]:
    """Runs the loop; the same call again goes on where it was.

    Args:
        config: the loop.
        console: for progress.

    Returns:
        Metrics of every round, as in its metrics.json.

    Raises:
        UsageError: inputs, models or options cannot be used.
        RunError: a step could not be finished.
    """
    from audiomill.train.loop.page import write_loop_page

    root = Path(config.output).absolute()
    inputs = {name: getattr(config, name) for name in ROLES}
    seen = seen_inputs(inputs, config.label)
    check_inputs(seen, config.loop.rounds > 0 and config.select.calibrate is None)
    _claim(root, config)
    for note in changed_inputs(root, seen):
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    rounds: list[_Metrics] = []
    first = BASELINE if _has_baseline(config) else 0
    while not _has_ended(rounds, config.loop):
        number = first + len(rounds)
        folder = root / f"round-{number}"
        if not (folder / "metrics.json").exists():
            _round(number, folder, rounds, config, console)
        rounds.append(json.loads((folder / "metrics.json").read_text()))
        console.print(round_line(rounds[-1]), highlight=False, soft_wrap=True)
        write_loop_page(root, rounds, config.label.plan.storage_options)
    (root / "best.json").write_text(json.dumps(best_of(rounds), indent=1))
    return rounds


def _has_ended(rounds: list[_Metrics], loop: LoopConfig) -> bool:
    return why_ended(rounds, loop) is not None


def _has_baseline(config: SelfTraining) -> bool:
    """Whether the model to start from writes texts, so that the first teacher can be compared with it."""
    train = config.train
    if not config.labelled or train.from_scratch or train.projector or train.features or is_new(train.model):
        return False
    try:
        return find_checkpoint(ModelConfig(model=train.model), config.label.plan.storage_options).offers(TEXT)
    except ModelError:
        return False


def _claim(root: Path, config: SelfTraining) -> None:
    """Claims the folder for these settings; the number of rounds may grow.

    Raises:
        UsageError: it belongs to other settings, or holds other things.
    """
    fields = dataclasses.asdict(
        dataclasses.replace(config, quiet=False, loop=dataclasses.replace(config.loop, rounds=1))
    )
    for secret in (fields["label"]["plan"],):
        secret.pop("storage_options")
    content = json.dumps(fields, indent=1, sort_keys=True, default=str)
    path = root / "loop.json"
    if path.exists():
        if path.read_text() != content:
            before, now = json.loads(path.read_text()), json.loads(content)
            differing = [name for name in now if before.get(name) != now[name]]
            raise UsageError(
                f"{root} was made with other settings ({', '.join(differing)}); use the old ones, or another output"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{root}: not empty and no loop's; choose another output")
    root.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _round(number: int, folder: Path, rounds: list[_Metrics], config: SelfTraining, console: Console) -> None:
    """One round, its metrics written last."""
    quiet = Console(quiet=True) if config.quiet else console
    teacher = best_of(rounds) if rounds else None
    folder.mkdir(parents=True, exist_ok=True)
    labeller = teacher if number > 0 else None
    train = _train_config(number, folder, labeller, config)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(train), indent=1, default=str))
    is_trained = number != BASELINE and (bool(config.labelled) or labeller is not None)
    selected: dict[str, Any] = {}
    if labeller is not None:
        if labeller["round"] == BASELINE:  # it was only measured so far
            _transcribe(config.dev, _folder_of(labeller, folder) / "dev", labeller["checkpoint"], config, quiet)
        label = _tuned(folder, labeller, config, quiet)
        quiet.print(f"round {number}: labelling with round {labeller['round']}", highlight=False)
        _transcribe(config.unlabelled, folder / "labels", labeller["checkpoint"], config, quiet, label)
        selected = _select(folder, labeller, config, quiet)
    report = _train(folder, train, config, quiet) if is_trained else {}
    checkpoint = str(folder / "training" / "checkpoint") if is_trained else config.train.model
    for name, inputs in (
        (("dev", config.dev), ("test", config.test)) if number != BASELINE else (("test", config.test),)
    ):
        _transcribe(inputs, folder / name, checkpoint, config, quiet)
    if is_trained:
        write_lineage(folder, labeller)
    metrics = _metrics(number, folder, teacher, checkpoint, config)
    metrics |= {"checkpoint": checkpoint, "training": report, "selection": selected}
    (folder / "metrics.json.tmp").write_text(json.dumps(metrics, indent=1))
    (folder / "metrics.json.tmp").rename(folder / "metrics.json")


def _train(folder: Path, train: TrainConfig, config: SelfTraining, console: Console) -> dict[str, Any]:
    """Trains on the labels and the pseudo-labels, or on the latter alone."""
    console.print(f"{folder.name}: training", highlight=False)
    inputs = config.labelled or (str(folder / "selection"),)
    job = FinetuneConfig(
        inputs=inputs,
        train=train if config.labelled else dataclasses.replace(train, pseudo=None),
        plan=config.label.plan,
        decode=config.label.decode,
        output=TrainOutputConfig(output=str(folder / "training"), quiet=config.quiet),
    )
    return train_model(job, console)


def _train_config(number: int, folder: Path, teacher: _Metrics | None, config: SelfTraining) -> TrainConfig:
    own_kind = config.train if teacher is None or config.student is None else config.student
    train = dataclasses.replace(own_kind, dev=",".join(config.dev), seed=config.loop.seed + number)
    if teacher is None:
        return train
    train = dataclasses.replace(train, pseudo=str(folder / "selection"))
    if config.loop.start == "pretrained":
        return train
    new_options = {name for each in objectives().values() for name in each.new_options}
    defaults = {name: getattr(TrainConfig(), name) for name in new_options}  # the teacher has its own
    return dataclasses.replace(train, model=teacher["checkpoint"], from_scratch=False, vocabulary="auto", **defaults)


def _tuned(folder: Path, teacher: _Metrics, config: SelfTraining, console: Console) -> Labelling:
    """How the teacher labels: with the weights of its beam search that do best on dev."""
    label = config.label
    search = label.transcripts.decoder
    checkpoint = find_checkpoint(ModelConfig(model=teacher["checkpoint"]), label.plan.storage_options)
    if not config.loop.tune_trials or search.beam_size == 1 or not checkpoint.offers(POSTERIORS):
        return label
    done, dev_folder = folder / "tuning" / "decoder.json", folder / "tuning" / "dev"
    if not done.exists():
        plain = SearchConfig(save_posteriors=max(POSTERIORS_KEPT, search.beam_size_token))
        whole = dataclasses.replace(label, transcripts=dataclasses.replace(label.transcripts, decoder=plain))
        _transcribe(config.dev, dev_folder, teacher["checkpoint"], config, console, whole)
        job = TuneJobConfig(
            inputs=(str(dev_folder),),
            decoder=search,
            storage=RedecodeEngineConfig(storage_options=label.plan.storage_options),
            tune=TuneConfig(trials=config.loop.tune_trials, language=label.transcripts.language),
            output=RedecodeOutputConfig(output=str(folder / "tuning"), quiet=config.quiet),
        )
        done.write_text(json.dumps(dataclasses.asdict(tuned(job, console)), indent=1))
    search_config = SearchConfig(**json.loads(done.read_text()))
    return dataclasses.replace(label, transcripts=dataclasses.replace(label.transcripts, decoder=search_config))


def _transcribe(
    inputs: tuple[str, ...],
    output: Path,
    model: str,
    config: SelfTraining,
    console: Console,
    label: Labelling | None = None,
) -> None:
    label = read_by(model, label or config.label)
    job = TranscribeConfig(
        inputs=inputs,
        plan=label.plan,
        decode=label.decode,
        segment=label.segment,
        engine=label.engine,
        model=dataclasses.replace(label.model, model=model),
        transcripts=label.transcripts,
        output=OutputConfig(output=str(output), quiet=config.quiet),
    )
    run_job(job.job(), console)


def _select(folder: Path, teacher: _Metrics, config: SelfTraining, console: Console) -> dict[str, Any]:
    """Pseudo-labels, calibrated on the dev set as the same teacher read it; test and dev sets are held out."""
    done = folder / "selection" / "summary.json"
    if not done.exists():
        before = _folder_of(teacher, folder)
        held_out = [config.select.held_out] if config.select.held_out else []
        rules = dataclasses.replace(
            config.select,
            calibrate=config.select.calibrate or str(before / "dev"),
            held_out=",".join([*held_out, str(before / "test"), str(before / "dev")]),
        )
        output = SelectOutputConfig(
            output=str(folder / "selection"), overwrite=True, storage_options=config.label.plan.storage_options
        )
        select_labels(SelectJobConfig(inputs=(str(folder / "labels"),), select=rules, output=output), console)
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def _folder_of(teacher: _Metrics, folder: Path) -> Path:
    """Of the teacher's round, beside that of another one."""
    return folder.parent / f"round-{teacher['round']}"


def _metrics(number: int, folder: Path, teacher: _Metrics | None, checkpoint: str, config: SelfTraining) -> _Metrics:
    """What the test set says, and whether the student takes over."""
    options = config.label.plan.storage_options
    test_errors = scored(folder / "test", options)
    before = test_errors if teacher is None else scored(_folder_of(teacher, folder) / "test", options)
    result = decided(before, test_errors, config.loop.seed)
    weights = find_checkpoint(ModelConfig(model=checkpoint), options)
    return {
        "round": number,
        "wer": result.after,
        "interval": result.after_interval,
        "teacher": None if teacher is None else teacher["round"],
        "teacher_wer": result.before,
        "probability": result.probability,
        "promoted": teacher is None or takes_over(number, result, config.loop.level),
        "gain": 0.0 if teacher is None else 1 - result.after / max(result.before, 1e-9),
        "fingerprint": checkpoint_fingerprint(weights),
        "level": config.loop.level,
    }


def round_config(values: dict[str, Any], sections: dict[str, dict[str, Any]]) -> SelfTraining:
    """A loop from plain values: inputs and output beside `loop`, `label`, `select`, `train` and `student`,
    each by option names.

    Raises:
        UsageError: students go on from a teacher of another kind, or languages are kept apart.
    """
    if any(sections.get(name, {}).get("language_adapters") for name in ("train", "student")):
        raise UsageError(
            "by_language: such a checkpoint hears one language at a time, as --language says; run a loop for each language"
        )
    if sections.get("student") and sections.get("loop", {}).get("start") == "teacher":
        raise UsageError(
            "loop.start teacher: students of another kind cannot go on from the teacher; leave out start, or student"
        )
    return SelfTraining(
        **values,
        loop=build(LoopConfig, sections.get("loop", {})),
        label=build(Labelling, sections.get("label", {})),
        select=build(SelectConfig, sections.get("select", {})),
        train=build(TrainConfig, sections.get("train", {})),
        student=build(TrainConfig, sections["student"]) if sections.get("student") else None,
    )
