"""Names of version 0.1 and what they are called since 0.2: of jobs, options, columns and ledger entries.

Old options work for one version, with a line that says the new one. Old columns are renamed where a table is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TypeVar

V = TypeVar("V")

RENAMED_JOBS = {"respell": "redecode", "decode": "redecode", "voices": "link-speakers", "train-units": "train-unit-lm"}
RENAMED_OPTIONS = {
    "accumulate": "gradient_accumulation_steps",
    "agreement": "consistency_samples",
    "allow_gates": "allow_failed_checks",
    "average_decay": "ema_decay",
    "beam_tokens": "beam_size_token",
    "by_language": "language_adapters",
    "canary": "verify_segments",
    "context_seconds": "chunk_overlap_seconds",
    "freeze_updates": "freeze_encoder_updates",
    "hold_share": "hold_ratio",
    "keep_posteriors": "save_posteriors",
    "keep_voices": "save_speaker_embeddings",
    "left_seconds": "left_context_seconds",
    "mask_feature": "mask_feature_prob",
    "mask_time": "mask_time_prob",
    "max_gradient": "max_grad_norm",
    "max_rung": "max_fallback_level",
    "min_agreement": "min_self_consistency",
    "missing_shards": "missing_array_tasks",
    "mixture": "layer_weights",
    "no_speech_share": "no_speech_augment_prob",
    "redo_below": "second_pass_threshold",
    "retry": "fallback",
    "right_seconds": "look_ahead_seconds",
    "second": "compare_with",
    "second_model": "second_pass_model",
    "shard": "array_task",
    "speaker_distance": "clustering_threshold",
    "stack": "frame_stacking",
    "temperature_fallback": "fallback",
    "text_form": "text_normalization",
    "units": "tokenizer",
    "unknown_score": "unk_score",
    "voice_model": "speaker_model",
    "warmup_share": "warmup_ratio",
    "word_pieces": "vocab_size",
    "word_score": "word_insertion_score",
}
"""Of config dataclasses, by field name."""
RENAMED_COLUMNS = {
    "segments": {
        "rung": "fallback_level",
        "gates": "failed_checks",
        "first_text": "first_pass_text",
        "agreement": "self_consistency",
    },
    "transcripts": {"agreement": "model_agreement"},
    "posteriors": {"levels": "quantized_logprobs", "is_continued": "continues_previous"},
}
"""By table."""
RENAMED_SELECTION_COLUMNS = {"agreement": "self_consistency"}
"""Columns of a selection."""
RENAMED_LEDGER_KEYS = {"canary": "verification", "rungs": "fallback_levels"}
"""Keys of ledger entries and of run.json."""


def with_new_names(values: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    """A mapping whose keys have today's names; one that is there under both keeps the new one."""
    return {names.get(name, name): value for name, value in values.items() if names.get(name) not in values}


def with_new_options(values: Mapping[str, V], known: Container[str], note: Callable[[str, str], None]) -> dict[str, V]:
    """Options by today's names. `known`: those of the job; `note`: is given each old name and its new one."""
    old = {name: RENAMED_OPTIONS[name] for name in values if name not in known and RENAMED_OPTIONS.get(name) in known}
    for name, new in old.items():
        note(name, new)
    return with_new_names(values, old)
