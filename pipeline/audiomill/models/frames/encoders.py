"""Encoders with a CTC head that mask their own padding: how they are fed, loaded and compared with transformers.

B batch, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import Parity
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.family import Loading
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.int8_layers import with_int8_layers
from audiomill.models.frames.model import FrameModel
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.preprocessing_files import (
    PREPROCESSOR,
    PROCESSOR,
    compared,
    feature_extractor,
)


class Features(Protocol):
    """int16 rows at 16 kHz -> keyword arguments of a model, and the length of each row in its steps."""

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class EncoderKind:
    """What differs between them.

    Attributes:
        features: folder, configuration of the encoder, device -> what feeds it.
        frames_of: lengths_B of the features, configuration, hidden state (None: at the head) -> frames_B.
        body: a model, with a head or without -> its encoder, which has `layers`.
        final_norm: the encoder -> what comes behind its last layer; None: nothing.
        hop: samples from one frame to the next at the head; `hops`: in hidden states where it differs.
    """

    features: Callable[[Path, Any, torch.device], Features]
    frames_of: Callable[[Tensor, Any, int | None], Tensor]
    body: Callable[[Any], Any]
    final_norm: Callable[[Any], Any | None] = lambda encoder: None
    hop: int
    hops: Mapping[int, int] = field(default_factory=dict)


class EncoderFeed:
    """See `audiomill.models.frames.frame_network.Feed`."""

    def __init__(self, kind: EncoderKind, features: Features, config: Any, dtype: torch.dtype) -> None:
        self._kind, self._features, self._config, self._dtype = kind, features, config, dtype
        self.hop = self.text_hop = kind.hop
        self._lengths_B = torch.zeros(0, dtype=torch.long)

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        inputs, self._lengths_B = self._features(rows)
        return {name: each.to(self._dtype) if each.is_floating_point() else each for name, each in inputs.items()}

    def hop_of(self, layer: int | None) -> int:
        return self.hop if layer is None else self._kind.hops.get(layer, self.hop)

    def frames_B(self, layer: int | None = None) -> Tensor:  # noqa: N802
        return self._kind.frames_of(self._lengths_B, self._config, layer).long()

    def text_frames_B(self) -> Tensor:  # noqa: N802
        return self.frames_B()


def load_encoder(loading: Loading, kind: EncoderKind) -> FrameModel:
    """A checkpoint from a local folder; with its CTC head where text is wanted.

    Raises:
        ModelError: weights, tokenizer or feature-extractor files are missing or do not fit.
    """
    from transformers import AutoModel, AutoModelForCTC

    config, requested, folder = loading.task.model, loading.task.requested, loading.path
    has_text = requested.has_head
    vocabulary = None
    dtype = torch.float32 if is_int8(config.precision) else dtype_of(config.precision)
    model = loaded_whole(AutoModelForCTC if has_text else AutoModel, folder, dtype)
    if has_text:
        tokenizer, settings = ctc_tokenizer(folder, None, False), model.config
        blank = getattr(settings, "blank_token_id", settings.pad_token_id)
        vocabulary = ctc_vocabulary(tokenizer, settings.vocab_size, settings.pad_token_id, blank)
    model = model.to(loading.device).eval()
    return FrameModel(
        encoder_network(loading, model, kind),
        vocabulary,
        requested,
        loading.quantizers,
        language=requested.text.language,
        storage_options=loading.storage_options,
        one_by_one=is_int8(config.precision),
    )


def encoder_network(loading: Loading, model: Any, kind: EncoderKind) -> FrameNetwork:
    """The encoder of a model on its device, fed as its family is, in the number format of the task; changed in place.

    Raises:
        ModelError: feature-extractor files are missing.
    """
    folder, precision, body = loading.path, loading.task.model.precision, kind.body(model)
    features = kind.features(folder, body.config, loading.device)
    feed = EncoderFeed(kind, features, body.config, next(body.parameters()).dtype)
    if is_int8(precision):
        with_int8_layers(body, precision)
    return FrameNetwork(
        model=model,
        body=body,
        stack=body,
        feed=feed,
        parity=lambda segment: encoder_parity(folder, model, kind, feed, segment),
        final_norm=kind.final_norm(body),
    )


def extractor_of(folder: Path, expected_rate: int = MODEL_SAMPLE_RATE) -> Any:
    """transformers' own feature extractor, for its settings.

    Raises:
        ModelError: no file tells them.
    """
    extractor = feature_extractor(folder, expected_rate)
    if extractor is None:
        raise ModelError(
            f"{folder}: nothing says how audio becomes features; expected {PREPROCESSOR} or {PROCESSOR} beside the weights"
        )
    return extractor


def encoder_parity(folder: Path, model: Any, kind: EncoderKind, feed: EncoderFeed, segment: Segment) -> Parity:
    """Compares what is given to the model and what comes out with transformers' own processor and model."""
    ours = feed([segment.pcm_T])
    try:
        extractor = extractor_of(folder)
    except ImportError as error:
        return Parity(note=f"input and forward pass: transformers' own feature extractor needs {error.name or error}")
    theirs = extractor(segment.pcm_T.astype(np.float32) / 32768.0, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
    name = next(name for name, each in ours.items() if each.is_floating_point())
    steps = min(ours[name].shape[1], theirs[name].shape[1]) if ours[name].ndim == theirs[name].ndim else None

    @torch.inference_mode()
    def outputs() -> tuple[Tensor, Tensor]:
        plain = type(model).from_pretrained(folder, dtype=torch.float32).eval()
        layer = _last_entered(kind.body(model))
        count = int(feed.frames_B(layer)[0])
        here, there = (_hidden_state(each, kind, given, layer) for each, given in ((model, ours), (plain, theirs)))
        return here[:, :count], there[:, :count]

    return compared(model, (ours[name][:, :steps], theirs[name][:, :steps]), outputs)


def _last_entered(body: Any) -> int | None:
    """The hidden state before the last layer that runs, where those above the wanted ones are gone; None: all are there."""
    whole = getattr(body.config, "encoder_num_hidden_layers", body.config.num_hidden_layers)
    return len(body.layers) - 1 if len(body.layers) < whole else None


def _hidden_state(model: Any, kind: EncoderKind, inputs: Mapping[str, Tensor], layer: int | None) -> Tensor:
    """A hidden state; None: the logits, or what leaves the encoder where there is no CTC head."""
    device, dtype = model.device, model.dtype
    given = {name: each.to(device, dtype if each.is_floating_point() else None) for name, each in inputs.items()}
    out: Tensor
    if layer is not None:
        out = kind.body(model)(**given, output_hidden_states=True).hidden_states[layer]
    elif hasattr(model, "ctc_head"):
        out = model(**given).logits
    else:
        out = kind.body(model)(**given).last_hidden_state
    return out
