"""A folder of an encoder-decoder -> a model, whatever the family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from audiomill.models.family import Loading
from audiomill.models.frames.encoders import Encoder, encoder_network
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.model import EncoderDecoder
from audiomill.models.seq2seq.named_alike import step_precision
from audiomill.models.seq2seq.writing import Writer


def load_encoder_decoder(
    loading: Loading, kind: Encoder, writer: Callable[[Any, str], Writer], encoded_at_once_s: float = 0.0
) -> EncoderDecoder:
    """A checkpoint from a local folder.

    Args:
        loading: what is wanted of which folder.
        kind: how its encoder is fed.
        writer: the model and the number format of its steps -> its decoder's side; asked where text is wanted.
        encoded_at_once_s: see `EncoderDecoder`.

    Raises:
        ModelError: files are missing or do not fit.
    """
    from transformers import AutoModelForSpeechSeq2Seq

    folder, wants, config = loading.path, loading.task.wants, loading.task.model
    precision = config.precision
    dtype = torch.float32 if is_int8(precision) else dtype_of(precision)
    model = loaded_whole(AutoModelForSpeechSeq2Seq, folder, dtype).to(loading.device).eval()
    decoder = None
    if wants.transcripts is not None:
        if loading.device.type == "cpu":  # its activations stay in float32
            model.model.decoder.float()
            model.proj_out.float()
        decoder = writer(model, step_precision(precision, loading.device))
    network = encoder_network(loading, model, kind)
    return EncoderDecoder(network, decoder, wants, loading.quantizers, config.memory_fraction, encoded_at_once_s)
