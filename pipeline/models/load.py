"""A settled task -> its model on its device, ready to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from pipeline.models.base import CONV, CodesWant, SpeechModel, Wants
from pipeline.models.checkpoint import (
    FAKE,
    Checkpoint,
    find_checkpoint,
    resolve_device,
    resolve_precision,
    whisper_tokenizer,
)
from pipeline.models.readout import Quantizer
from pipeline.models.task import LoadedTask, TaskSpec

if TYPE_CHECKING:
    from pipeline.models.whisper import WhisperModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_tasks(tasks: tuple[TaskSpec, ...], storage_options: dict[str, Any]) -> list[LoadedTask]:
    """Every model of a run."""
    return [LoadedTask(task, load_model(task, storage_options)) for task in tasks]


def load_model(task: TaskSpec, storage_options: dict[str, Any]) -> SpeechModel:
    """The model of one task, with the quantizers that it needs."""
    transformers.utils.logging.disable_progress_bar()
    checkpoint = find_checkpoint(task.model, storage_options)
    if checkpoint.kind == "fake":
        from pipeline.models.fake import FakeModel

        return FakeModel(checkpoint.path.removeprefix(FAKE), task.wants)
    device = torch.device(resolve_device(task.model.device))
    only_text = not task.wants.layers
    precision = resolve_precision(task.model.precision, device.type, checkpoint.kind, only_text)
    quantizers = {
        want.name: _quantizer(want, checkpoint, device, storage_options)
        for want in task.wants.codes
        if want.layer is not None
    }
    path = Path(checkpoint.path)
    if checkpoint.kind == "whisper":
        from pipeline.models.whisper_ladder import WhisperLadder

        first = load_whisper(path, device, precision, task.wants, quantizers, task.model.memory_fraction)
        text = task.wants.transcripts
        if text is not None and text.second_model is not None:
            config = dataclasses.replace(task.model, model=text.second_model)
            behind, wants = Path(find_checkpoint(config, storage_options).path), Wants(transcripts=text)
            second = load_whisper(behind, device, precision, wants, {}, config.memory_fraction)
            first.ladder = WhisperLadder(first, text, second)
        return first
    dtype = DTYPES[precision]
    if checkpoint.kind == "fairseq":
        from pipeline.models.fairseq import Wav2VecModel, load_fairseq

        return Wav2VecModel(load_fairseq(path).to(device=device, dtype=dtype), task.wants, quantizers)
    from pipeline.models.wav2vec2 import load_frame_model

    return load_frame_model(path, device, dtype, task.wants, quantizers, task.model.trust_remote_code, storage_options)


def load_whisper(
    folder: Path,
    device: torch.device,
    precision: str,
    wants: Wants,
    quantizers: dict[str, Quantizer],
    memory_fraction: float,
) -> WhisperModel:
    """Whisper from a Hugging Face or CTranslate2 folder."""
    from pipeline.models.whisper import WhisperModel
    from pipeline.models.whisper_align import heads_of
    from pipeline.models.whisper_ladder import WhisperLadder
    from pipeline.models.whisper_tokens import numeral_tokens, tokens_of

    model, generation = whisper_parts(folder)
    tokenizer = whisper_tokenizer(folder)
    if wants.transcripts is not None and wants.transcripts.suppress_numerals:
        numerals = numeral_tokens(tokenizer, tokenizer.token_to_id("<|endoftext|>"))
        generation["suppress_tokens"] = [*(generation.get("suppress_tokens") or ()), *numerals]
    tokens = tokens_of(tokenizer, model.config.vocab_size, generation)
    # CPUs have fast products in bf16 and int8, and nothing else: activations stay in float32.
    model = model.to(device=device, dtype=torch.float32 if device.type == "cpu" else DTYPES[precision]).eval()
    shape = (model.config.decoder_layers, model.config.decoder_attention_heads)
    heads = heads_of(generation.get("alignment_heads"), *shape)
    found = WhisperModel(model, tokenizer, tokens, wants, quantizers, heads, precision, memory_fraction)
    if wants.transcripts is not None and wants.transcripts.retry:
        found.ladder = WhisperLadder(found, wants.transcripts)
    return found


def whisper_parts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A float32 `WhisperForConditionalGeneration`, and its suppressed tokens and alignment heads."""
    from transformers import WhisperForConditionalGeneration

    from pipeline.models import ctranslate2

    if ctranslate2.is_ctranslate2(folder):
        settings = ctranslate2.read_settings(folder)
        return ctranslate2.load_whisper(folder), {
            "suppress_tokens": settings.get("suppress_ids"),
            "begin_suppress_tokens": settings.get("suppress_ids_begin"),
            "alignment_heads": settings.get("alignment_heads"),
        }
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return model, model.generation_config.to_dict()


def _quantizer(
    want: CodesWant, checkpoint: Checkpoint, device: torch.device, storage_options: dict[str, Any]
) -> Quantizer:
    from pipeline.models.codebooks import NearestCentroid, gumbel_of, read_codebook
    from pipeline.models.locate import local_path
    from pipeline.storage.fs import Place

    if want.layer == CONV:
        folder = local_path(want.source, storage_options) if want.source else Path(checkpoint.path)
        return gumbel_of(folder, want.num_codebooks, device)
    return NearestCentroid(read_codebook(Place(want.source, storage_options), want.layer).centroids_VD, device)
