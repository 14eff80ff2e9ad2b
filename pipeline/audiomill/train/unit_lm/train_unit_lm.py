"""The train-units job: outputs of encode runs -> a language model over their codes; goes on after a kill."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from audiomill.config.fields import result_fields
from audiomill.config.train_unit_lm import TrainUnitsConfig, UnitsConfig
from audiomill.errors import UsageError
from audiomill.models.checkpoint import Checkpoint, checkpoint_fingerprint
from audiomill.models.codes.unit_settings import ENCODER, MIN_TOKENS, UnitPlan, UnitSettings
from audiomill.models.codes.unit_tokens import unit_vocabulary
from audiomill.models.device import resolve_device
from audiomill.models.family import CODES, has_files
from audiomill.models.vectors.frozen_encoder import found_encoder
from audiomill.models.vectors.kept_parts import name_of
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.train.fit.finetune import PreparedTraining, Report, carried_out, given_back
from audiomill.train.fit.launch import UNITS, Training, load_learner
from audiomill.train.fit.output_lock import claim
from audiomill.train.unit_lm.sequences import (
    CodeKind,
    Sequences,
    check_use,
    code_kind,
    count_codes,
    read_sequences,
    write_sequences,
)

_EDGES = 2
"""Tokens around a sequence: its start and its end."""


def train_unit_model(config: TrainUnitsConfig, console: Console) -> Report:
    """Trains a language model over codes; the same call again goes on where it was, or does nothing.

    Args:
        config: the job.
        console: for progress.

    Returns:
        What was trained on, for how long; also OUTPUT/result.json.

    Raises:
        UsageError: inputs or options cannot be used.
        InputError: the tables hold no codes, or those of several quantizers.
        RunError: the loss is not a number any more.
    """
    units = config.units
    return carried_out(config.output, units.storage_options, units.device, console, partial(_prepared, config))


def _prepared(config: TrainUnitsConfig, output: Path, quiet: Console) -> Report | PreparedTraining:
    """What is to be trained, or the report of a run that is done."""
    units = config.units
    resolve_device(units.device)
    places = [Place(absolute(each), units.storage_options) for each in config.inputs]
    if not places:
        raise UsageError("no inputs: expected outputs of `audiomill encode`")
    kind = code_kind(places, units.quantizer)
    coder, hop = _coder(units, kind, places)
    output.mkdir(parents=True, exist_ok=True)
    is_new_folder = not (output / "run.json").exists()
    made_by = _codebook_print(units, kind, places)
    fields = {
        **result_fields(config),
        "inputs": list(config.inputs),
        "model": checkpoint_fingerprint(coder),
        "codebook": made_by,
    }
    claim(output, fields, "train-unit-lm")
    if (output / "result.json").exists():
        return {**json.loads((output / "result.json").read_text()), "is_new": False}
    folder = output / "clips"
    with given_back(output, is_new_folder):
        sequences, message = _sequences(units, kind, coder, hop, places, folder, quiet)
    quiet.print(
        f"training on {len(sequences)} sequences, {sequences.seconds / 3600:.2f} h of codes, {message['vocabulary_size']} tokens",
        highlight=False,
    )
    training = Training(
        units,
        str(folder),
        "",
        UNITS,
        str(output),
        sequences.table,
        sequences.table,
        None,
        units.storage_options,
        config.output.quiet,
        config.output.output,
    )
    return PreparedTraining(training, load_learner(training, resolve_device(units.device)), [], message)


def _coder(units: UnitsConfig, kind: CodeKind, places: list[Place]) -> tuple[Checkpoint, int]:
    """The checkpoint that made the codes, and its hop.

    Raises:
        UsageError: it is not there, or other weights made them.
    """
    name = units.model or kind.model
    try:
        result, shape = found_encoder(name, units.storage_options)
    except UsageError as error:
        hint = "" if units.model else f"; the tables name {kind.model!r}: say where it is now with --model"
        raise UsageError(f"{error}{hint}") from error
    result.require(CODES, f"--model {name}: gives no codes; expected the checkpoint that made them")
    coder_hash = checkpoint_fingerprint(result)
    for place in places:
        made_by = ledger.claim_of(place).get("results", {}).get("model")
        if isinstance(made_by, str) and made_by != coder_hash:
            raise UsageError(
                f"{place.url}: its codes were made by weights {made_by}, {name} has {coder_hash}; expected the checkpoint that made them, "
                "name it with --model"
            )
    if units.codebook is None and (shape.quantizer is None or kind.quantizer != "quantizer"):
        raise UsageError(
            f"codes of {kind.quantizer}: not those of the checkpoint's own quantizer; name the file that made them: --codebook km.safetensors"
        )
    if units.codebook is None and shape.quantizer is not None and shape.quantizer[1] != kind.num_entries:
        raise UsageError(
            f"codes of {kind.quantizer}: codebooks of {kind.num_entries} entries, {name} has {shape.quantizer[1]}; expected the checkpoint "
            "that made them"
        )
    return result, int(shape.hop)


def _sequences(
    units: UnitsConfig, kind: CodeKind, coder: Checkpoint, hop: int, places: list[Place], folder: Path, quiet: Console
) -> tuple[Sequences, dict[str, Any]]:
    """Written, or those of an earlier run; and what people are told of them."""
    note = folder / "told.json"
    if (before := read_sequences(folder)) is not None and note.exists():
        return before, json.loads(note.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    quiet.print("reading codes", highlight=False)
    counts = count_codes(places, kind)
    check_use(counts, kind)
    if max(counts.values()) < units.min_count:
        raise UsageError(
            f"--min-count {units.min_count}: the most frequent code has {max(counts.values())} frames; expected no more than that"
        )
    made = unit_vocabulary(counts, kind.num_codebooks, kind.num_entries, units.min_count, units.max_vocabulary)
    codebook = _codebook(units, folder)
    made.vocabulary.save(folder)
    files = coder.path if has_files(coder.name) and Path(coder.name).exists() else None
    settings = UnitSettings(
        encoder=coder.name if files is None else name_of(files, ENCODER),
        encoder_fingerprint=checkpoint_fingerprint(coder),
        quantizer=kind.quantizer,
        has_codebook=codebook is not None,
        num_codebooks=kind.num_codebooks,
        num_entries=kind.num_entries,
        hop=hop,
        deduplicate=units.deduplicate,
    )
    own_items = {
        name: getattr(units, name)
        for name in ("width", "depth", "heads", "max_positions", "dropout", "mask_start", "mask_span")
    }
    UnitPlan(settings=settings, encoder_files=files, codebook=codebook, **own_items).save(folder)
    sequences, short = write_sequences(
        places, kind, made.vocabulary, folder, hop, units.deduplicate, units.max_positions - _EDGES, MIN_TOKENS
    )
    if not len(sequences):
        raise UsageError(f"nothing to train on: {short} segments, each of fewer than {MIN_TOKENS} tokens")
    messages = {
        "vocabulary_size": len(made.vocabulary),
        "unknown_share": made.unknown_frames / sum(counts.values()),
        "num_tokens": int(sequences.table.column("num_tokens").to_numpy().sum()),
        "too_short": short,
    }
    note.write_text(json.dumps(messages))
    return sequences, messages


def _codebook_print(units: UnitsConfig, kind: CodeKind, places: list[Place]) -> str | None:
    """Fingerprint of the codebook file, None without one.

    Raises:
        UsageError: it did not make the codes.
    """
    if units.codebook is None:
        return None
    from audiomill.models.codes.codebooks import codebook_fingerprint, read_codebook

    codebook = read_codebook(Place(absolute(units.codebook), units.storage_options), None)
    entries, own_print = len(codebook.centroids_VD), codebook_fingerprint(codebook)
    if entries != kind.num_entries:
        raise UsageError(
            f"--codebook {units.codebook}: {entries} entries, the codes are of {kind.num_entries}; expected the file that made them"
        )
    for place in places:
        made_by = ledger.claim_of(place).get("results", {}).get("codebook")
        if made_by is not None and own_print not in json.dumps(made_by):
            raise UsageError(
                f"--codebook {units.codebook}: has fingerprint {own_print}, the codes of {place.url} were made by {made_by}; expected the "
                "file that made them"
            )
    return own_print


def _codebook(units: UnitsConfig, folder: Path) -> str | None:
    """A copy of the codebook file beside the sequences."""
    if units.codebook is None:
        return None
    content = Place(absolute(units.codebook), units.storage_options).read()
    (folder / "codebook.safetensors").write_bytes(content)
    return str(folder / "codebook.safetensors")


def unit_lm_lines(report: Report, output: str) -> list[str]:
    """The end of a training, for people."""
    output = output.rstrip("/")
    if not report["is_new"]:
        return [
            f"{output}: nothing to do, already trained for {report['num_updates']} updates (--overwrite starts anew)"
        ]
    lines = [
        f"trained on {report['num_clips']} sequences, {report['num_tokens']} tokens of {report['vocabulary_size']} kinds, "
        f"{report['hours']:.2f} h, {report['num_updates']} updates; of masked tokens {100 * (report['accuracy'] or 0):.1f}% right",
        f"checkpoint: {output}/checkpoint (use it as --model of embed, encode and finetune --features); curves: {output}/report.html",
    ]
    if report["unknown_share"]:
        lines.append(
            f"unknown: {100 * report['unknown_share']:.2f}% of the frames, by --min-count and --max-vocabulary"
        )
    if report["nothing_learnt"]:
        lines.append(f"warning: {report['nothing_learnt']}; more codes or updates, or another --learning-rate")
    return lines
