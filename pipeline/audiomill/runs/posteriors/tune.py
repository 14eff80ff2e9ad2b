"""The tune-decoder job: weights of the language model and its companions, by the word error rate on kept posteriors."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from audiomill.config.output_jobs import TuneJobConfig
from audiomill.config.text import SearchConfig
from audiomill.errors import InputError
from audiomill.models.device import usable_cores
from audiomill.runs.posteriors.saved_posteriors import KeptPosteriors, decoder_of, texts_of
from audiomill.sources.references import read_references, reference_of
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.text.wer import NO_ERRORS, Errors, score_pair
from audiomill.watch.map_parts import spawned_processes

RANGES = {
    "lm_weight": (0.0, 3.0),
    "word_insertion_score": (-3.0, 4.0),
    "unk_score": (-15.0, 0.0),
    "hotword_score": (0.0, 10.0),
    "rescore_weight": (0.0, 1.5),
}
SPREAD_TRIALS = 0.5
"""Share of the trials spread over the whole ranges; the others close in on the best one."""
Trial = dict[str, Any]


def tune(config: TuneJobConfig, console: Console) -> dict[str, Any]:
    """Tries settings and writes the best: OUTPUT/decoder.yaml (for --config), OUTPUT/trials.json.

    Args:
        config: the job; its input is the output of `transcribe --save-posteriors` on audio with known text.
        console: for progress.

    Returns:
        The best settings, their WER, and that of the settings as given.

    Raises:
        InputError: no posteriors or no reference texts.
    """
    start = with_beams(config.decoder)
    trials = tried(config, console)
    best, names = min(trials, key=lambda trial: trial["wer"]), _tuned(start)
    output = Place(absolute(config.output.output), config.storage.storage_options)
    settings = {**{name: best[name] for name in names}, **_chosen(start)}
    output.join("decoder.yaml").write(yaml.safe_dump(settings, sort_keys=True).encode())
    output.join("trials.json").write(json.dumps(trials, indent=1).encode())
    return {"best": best, "first": trials[0], "settings": settings, "num_trials": len(trials)}


def with_beams(decoder: SearchConfig) -> SearchConfig:
    """The same with a beam search, where nobody asked for one."""
    return decoder if decoder.beam_size > 1 else dataclasses.replace(decoder, beam_size=32)


def tuned(config: TuneJobConfig, console: Console) -> SearchConfig:
    """The decoder with the weights that do best; raises what `tune` raises."""
    start = with_beams(config.decoder)
    best = min(tried(config, console), key=lambda trial: trial["wer"])
    return dataclasses.replace(start, **{name: best[name] for name in _tuned(start)})


def tried(config: TuneJobConfig, console: Console) -> list[Trial]:
    """WER and weights of every trial, the first one with the weights as given."""
    options = config.storage.storage_options
    place = Place(absolute(config.only_input()), options)
    source = KeptPosteriors(place)
    references = _references(place, config, options)
    start = with_beams(config.decoder)
    names = _tuned(start)
    parts = sorted(ledger.done_parts(place))
    decoder_of(start, source)  # tells what cannot be used
    trials: list[Trial] = []
    with spawned_processes(min(config.storage.workers or usable_cores(), max(1, len(parts) * 4))) as pool:
        for number, values in enumerate(_proposed(start, names, config.tune.trials, trials)):
            decoder = dataclasses.replace(start, **values)
            slices = [(part, at) for part in parts for at in range(_SLICES)]
            futures = [
                pool.submit(_errors, place, part, at, decoder, references, config.tune.language) for part, at in slices
            ]
            errors = sum((future.result() for future in futures), NO_ERRORS)
            trials.append({"wer": errors.rate, "num_words": errors.num_reference, **values})
            if not config.output.quiet:
                best = min(trial["wer"] for trial in trials)
                console.print(
                    f"trial {number + 1}/{config.tune.trials}: WER {100 * errors.rate:.2f}%, best {100 * best:.2f}%",
                    highlight=False,
                )
    return trials


_SLICES = 4
"""Of each part, so that a small dev set keeps all cores busy."""


def _references(place: Place, config: TuneJobConfig, options: dict[str, Any]) -> dict[str, str]:
    """Reference text by recording id."""
    given = read_references(Place(config.tune.references, options)) if config.tune.references else None
    references = {}
    for row in ledger.tables(place, "recordings", ["id", "source", "member", "reference"]).to_pylist():
        text = reference_of(row, given)
        if text is not None:
            references[row["id"]] = text
    if not references:
        raise InputError(
            f"{place.url}: no recording has a reference; give --references FILE, or transcribe audio with texts"
        )
    return references


def _tuned(config: SearchConfig) -> list[str]:
    """Weights that make a difference."""
    results = ["word_insertion_score"]
    if config.lm:
        results += ["lm_weight"] + ([] if config.lexicon else ["unk_score"])
    return (
        results + (["hotword_score"] if config.hotwords else []) + (["rescore_weight"] if config.rescore_model else [])
    )


def _chosen(config: SearchConfig) -> dict[str, Any]:
    """Settings that belong to the weights, as they were given."""
    names = ("beam_size", "beam_size_token", "lm", "lexicon", "hotwords", "rescore_model")
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def _proposed(start: SearchConfig, names: Sequence[str], count: int, trials: list[Trial]) -> Iterator[dict[str, Any]]:
    """The settings as given, then points spread evenly over the ranges (Kronecker sequence), then near the best."""
    yield {name: getattr(start, name) for name in names}
    golden = _generalised_golden_ratio(len(names))
    spread = max(1, int(SPREAD_TRIALS * count))
    random = np.random.default_rng(0)
    for number in range(1, count):
        values = {}
        best = min(trials, key=lambda trial: trial["wer"])
        reach = 0.25 * 0.9 ** max(0, number - spread)
        for at, name in enumerate(names):
            low, high = RANGES[name]
            if number <= spread:
                share = (0.5 + number * golden ** -(at + 1)) % 1.0
                value = low + share * (high - low)
            else:
                value = best[name] + reach * (high - low) * random.uniform(-1, 1)
            values[name] = round(float(np.clip(value, low, high)), 4)
        yield values


def _generalised_golden_ratio(dimensions: int) -> float:
    """Source: Roberts 2018, "The Unreasonable Effectiveness of Quasirandom Sequences"."""
    value = 2.0
    for _ in range(40):
        value = (1 + value) ** (1 / (dimensions + 1))
    return value


def _errors(
    place: Place, part: int, at: int, config: SearchConfig, references: dict[str, str], language: str | None
) -> Errors:
    """Word errors of one slice of the recordings of a part."""
    source = KeptPosteriors(place)
    segments, stretches, hop = source.part(part)
    ids = sorted({segment["recording_id"] for segment in segments if segment["recording_id"] in references})[
        at::_SLICES
    ]
    chosen = [number for number, segment in enumerate(segments) if segment["recording_id"] in set(ids)]
    chosen_segments = [segments[number] for number in chosen]
    texts = texts_of(chosen_segments, [stretches[number] for number in chosen], hop, decoder_of(config, source))
    of: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for segment, text in zip(chosen_segments, texts, strict=True):
        of[segment["recording_id"]].append((segment["start_s"], text.text))
    errors = NO_ERRORS
    for name in ids:
        hypothesis = " ".join(text for _, text in sorted(of[name]) if text)
        errors += score_pair(references[name], hypothesis, language or chosen_segments[0]["language"])[0]
    return errors
