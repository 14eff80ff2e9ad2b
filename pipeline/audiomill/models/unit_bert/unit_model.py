"""Audio -> codes -> hidden states of a language model over them. F frames, L tokens, D width, K codebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError
from audiomill.models.base import CodesRequest, Parity, Prediction, RequestedOutputs, SpeechModel
from audiomill.models.checkpoint import checkpoint_fingerprint, find_checkpoint, shape_of
from audiomill.models.codes.codebooks import read_codebook
from audiomill.models.codes.unit_settings import CODEBOOK, ENCODER, END, START, UnitSettings, unit_settings
from audiomill.models.codes.unit_tokens import UnitVocabulary, deduplicate_codes, joint_codes, read_vocabulary
from audiomill.models.family import Loading
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of, load_speech_model
from audiomill.models.vectors.kept_parts import check_same_part, place_of
from audiomill.models.vectors.readout import CoreFrames, Quantizer, read_out
from audiomill.models.vectors.requested_outputs import QUANTIZER
from audiomill.models.watchdog import heartbeat
from audiomill.storage.fs import Place

_EDGES = 2
"""Tokens around those of a segment: its start and its end."""


class UnitModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`. A segment's codes are read without those of its neighbours, as in training.

    Args:
        encoder: gives the codes.
        body: RoBERTa, on its device, in evaluation mode.
        vocabulary: tokens of the codes.
        settings: of both.
        requested: what to give.
        quantizers: by name of the want.
    """

    pads_rows_alone = True

    def __init__(
        self,
        encoder: SpeechModel,
        body: Any,
        vocabulary: UnitVocabulary,
        settings: UnitSettings,
        requested: RequestedOutputs,
        quantizers: Mapping[str, Quantizer],
    ) -> None:
        self._encoder, self._body, self._vocabulary, self._settings = encoder, body, vocabulary, settings
        self._wants, self._quantizers = requested, quantizers
        self._window = body.config.max_position_embeddings - body.config.pad_token_id - 1 - _EDGES

    def padded_length(self, num_samples: int) -> int:
        return self._encoder.padded_length(num_samples)

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Vectors and codes, row by row."""
        results = []
        for segment, answer in zip(batch, self._encoder.forward(batch), strict=True):
            heartbeat()
            hidden = self._hidden(answer.readout.codes[0])
            frames, device = next(iter(hidden.values())).shape[1], self._body.device
            core = CoreFrames([segment.core], [frames], self._settings.hop, device)
            (readout,) = read_out(self._wants, hidden, None, self._quantizers, lambda layer, core=core: core)  # type: ignore[misc]
            results.append(Prediction(None, readout))
        return results

    def _hidden(self, codes_KF: NDArray[np.uint16]) -> dict[int, Tensor]:
        """hidden_1FD of each wanted layer."""
        joint = joint_codes(codes_KF, self._settings.num_entries)
        lasting = np.ones(len(joint), np.int64)
        if self._settings.deduplicate:
            joint, lasting = deduplicate_codes(joint)
        tokens_L = self._vocabulary.tokens(joint)
        read = [self._read(tokens_L[start:stop]) for start, stop in _windows(len(tokens_L), self._window)]
        repeats = torch.from_numpy(lasting).to(self._body.device)
        layers = {layer: _seamless([each[layer] for each in read], len(tokens_L), self._window) for layer in read[0]}
        return {layer: each.repeat_interleave(repeats, 1) for layer, each in layers.items()}

    def _read(self, tokens_L: NDArray[np.int64]) -> dict[int, Tensor]:
        """hidden_1LD of one window, without its edges."""
        number_of = self._vocabulary.number_of
        ids = torch.tensor([[number_of[START], *tokens_L.tolist(), number_of[END]]], device=self._body.device)
        states = self._body(input_ids=ids, output_hidden_states=True).hidden_states
        return {layer: states[layer][:, 1:-1] for layer in self._wants.layers}

    def parity(self, segment: Segment) -> Parity:
        """Of what makes the codes."""
        return self._encoder.parity(segment)


def _windows(length: int, window: int) -> list[tuple[int, int]]:
    """Of a sequence: the whole, or windows that overlap by half."""
    if length <= window:
        return [(0, length)]
    step = window // 2
    starts = [*range(0, length - window, step), length - window]
    return [(start, start + window) for start in starts]


def _seamless(read: Sequence[Tensor], length: int, window: int) -> Tensor:
    """Each token from the window in whose middle it lies most."""
    if len(read) == 1:
        return read[0]
    spans, parts, at = _windows(length, window), [], 0
    for number, (start, stop) in enumerate(spans):
        until = stop if number + 1 == len(spans) else (spans[number + 1][0] + stop) // 2
        parts.append(read[number][:, at - start : until - start])
        at = until
    return torch.cat(parts, dim=1)


def load_unit_bert(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: a part is missing, was changed, or does not fit the others.
    """
    from transformers import AutoModel

    folder, task = loading.path, loading.task
    settings = unit_settings(folder)
    body = loaded_whole(AutoModel, folder, dtype_of(task.model.precision), may_be_missing=("pooler",))
    vocabulary = read_vocabulary(folder, settings.num_codebooks, settings.num_entries)
    if len(vocabulary) != body.config.vocab_size:
        raise ModelError(
            f"{folder}: vocab.json has {len(vocabulary)} tokens, the weights {body.config.vocab_size}; expected as many"
        )
    encoder = load_coder(folder, settings, task.model, loading.storage_options)
    body = body.to(loading.device).eval()
    return UnitModel(encoder, body, vocabulary, settings, task.requested, loading.quantizers)


def load_coder(
    folder: Path, settings: UnitSettings, model: ModelConfig, storage_options: dict[str, object]
) -> SpeechModel:
    """What makes the codes.

    Raises:
        ModelError: it is not there, or another one is.
    """
    name = place_of(folder, settings.encoder, ENCODER)
    checkpoint = find_checkpoint(ModelConfig(model=name), storage_options)
    check_same_part(
        "checkpoint that makes the codes", name, checkpoint_fingerprint(checkpoint), settings.encoder_fingerprint
    )
    source, layer, shape = "", None, shape_of(checkpoint)
    if settings.has_codebook:
        source = str(folder / CODEBOOK)
        layer = int(read_codebook(Place(source, {}), None).layer)
    elif not checkpoint.family.quantizes_itself:
        from audiomill.models.base import CONV

        layer = CONV
    want = CodesRequest(
        name=settings.quantizer if settings.has_codebook else QUANTIZER,
        source=source,
        layer=layer,
        num_codebooks=settings.num_codebooks
        if settings.has_codebook or shape.quantizer is None
        else shape.quantizer[0],
        num_entries=settings.num_entries,
        num_kept=settings.num_codebooks,
    )
    return load_speech_model(dataclasses.replace(model, model=name), RequestedOutputs(codes=(want,)), storage_options)
