"""Speech2Text as `audiomill.models.seq2seq` and `audiomill.models.frames.encoders` want it.

B batch, T samples, F mel frames, M mels, C channels, L positions, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.config.text import TranscriptConfig
from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import EncoderKind, extractor_of
from audiomill.models.frames.exact import frame_mask
from audiomill.models.frames.fbank import WINDOW_SAMPLES, kaldi_fbank
from audiomill.models.matrix_products import fused, projection
from audiomill.models.seq2seq.decoder_weights import (
    CrossAttention,
    DecoderLayer,
    DecoderWeights,
    special_tokens,
    tokenizer_in,
)
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.seq2seq.model import load_encoder_decoder

S2T_HOP = 640
"""Mel frames every 10 ms, halved twice."""
SMALLEST_STD = 1e-8
"""Of a mel band over a segment: one frame has none, and digital silence neither."""


class FilterBanks:
    """Log-mels of rows, each band with zero mean and unit variance over its own row.

    Args:
        num_mels: M.
        normalises: means, and variances.
        device: where to compute.
    """

    def __init__(self, num_mels: int, normalises: tuple[bool, bool], device: torch.device) -> None:
        self._fbank, self._normalises, self._device = kaldi_fbank(num_mels, device), normalises, device

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        """Features, with a mask where rows differ in length, and the mel frames of each row."""
        mels = [self.mels(row) for row in rows]
        lengths_B = torch.tensor([len(mel) for mel in mels], device=self._device)
        features_BFM = nn.utils.rnn.pad_sequence(mels, batch_first=True)
        results = {"input_features": features_BFM}
        if len(set(lengths_B.tolist())) > 1:
            results["attention_mask"] = frame_mask(lengths_B, features_BFM.shape[1]).long()
        return results, lengths_B

    def mels(self, pcm_T: NDArray[np.int16]) -> Tensor:
        """mel_FM of one row, float32; at least one frame."""
        wave = torch.from_numpy(np.pad(pcm_T, (0, max(0, WINDOW_SAMPLES - len(pcm_T)))).astype(np.float64))
        mel_FM = self._fbank.log_mels(wave[None].to(self._device))[0]
        if self._normalises[0]:
            mel_FM = mel_FM - mel_FM.mean(0)
        if self._normalises[1]:
            mel_FM = mel_FM / mel_FM.std(0, correction=0).clamp(min=SMALLEST_STD)
        return mel_FM.float()


def filter_banks(folder: Path, config: Any, device: torch.device) -> FilterBanks:
    """By the checkpoint's own feature extractor."""
    extractor = extractor_of(folder)
    does = bool(extractor.do_ceptral_normalize)
    return FilterBanks(
        int(extractor.num_mel_bins), (does and extractor.normalize_means, does and extractor.normalize_vars), device
    )


def frames_behind(lengths_B: Tensor, config: Any, layer: int | None) -> Tensor:
    """Encoder frames of rows of so many mel frames."""
    for _ in range(config.num_conv_layers):
        lengths_B = (lengths_B - 1) // 2 + 1
    return lengths_B


S2T_ENCODER = EncoderKind(
    features=filter_banks,
    frames_of=frames_behind,
    body=lambda model: model.model.encoder if hasattr(model, "model") else model.encoder,
    final_norm=lambda encoder: encoder.layer_norm,
    hop=S2T_HOP,
)


class MaskedConvolutions(nn.Module):
    """transformers' convolutions for rows that differ in length: zeros stand behind each row before each of them, as they do
    alone. Has the parameters of the one that it replaces, under the same names.

    Args:
        plain: of transformers.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.conv_layers = plain.conv_layers
        self.lengths_B: Tensor | None = None

    def forward(self, features_BFM: Tensor) -> Tensor:
        """hidden_BLD."""
        x_BCF, lengths_B = features_BFM.transpose(1, 2), self.lengths_B
        for conv in self.conv_layers:
            if lengths_B is not None:
                x_BCF = x_BCF * frame_mask(lengths_B, x_BCF.shape[2])[:, None]
                lengths_B = (lengths_B - 1) // 2 + 1
            x_BCF = nn.functional.glu(conv(x_BCF), dim=1)
        return x_BCF.transpose(1, 2)


def s2t_decoder(model: Any, folder: Path, precision: str) -> DecoderWeights:
    """Of a `Speech2TextForConditionalGeneration`."""
    decoder, config = model.model.decoder, model.config
    tokens_VD = decoder.embed_tokens.weight.detach() * decoder.embed_scale
    places, first = decoder.embed_positions, config.pad_token_id + 1
    table_PD = places.get_embedding(config.max_target_positions + first, config.d_model, config.pad_token_id)
    positions_PD = table_PD.to(tokens_VD)[first:]
    return DecoderWeights(
        embed=lambda tokens, at: tokens_VD[tokens] + positions_PD[at],
        layers=[_layer(layer, precision) for layer in decoder.layers],
        norm=decoder.layer_norm,
        vocabulary=projection(model.lm_head.weight, None, precision),
        num_heads=config.decoder_attention_heads,
        width=config.d_model,
        max_positions=config.max_target_positions,
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
    )


def _layer(layer: Any, precision: str) -> DecoderLayer:
    self_attention, cross = layer.self_attn, layer.encoder_attn
    fc1, fc2, act = fused([layer.fc1], precision), fused([layer.fc2], precision), layer.activation_fn
    return DecoderLayer(
        attention_norm=layer.self_attn_layer_norm,
        qkv=fused([self_attention.q_proj, self_attention.k_proj, self_attention.v_proj], precision),
        out=fused([self_attention.out_proj], precision),
        norm=layer.final_layer_norm,
        feed_forward=lambda x_BLD: fc2(act(fc1(x_BLD))),
        cross=CrossAttention(
            norm=layer.encoder_attn_layer_norm,
            q=fused([cross.q_proj], precision),
            kv=fused([cross.k_proj, cross.v_proj], precision),
            out=fused([cross.out_proj], precision),
        ),
    )


def load_speech_to_text(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder. Its features are normalised over whole rows, so each is encoded alone."""

    def writer(model: Any, precision: str) -> DecoderAdapter:
        tokenizer = tokenizer_in(loading.path)
        return writer_of(model, loading.path, tokenizer, precision, loading.task.requested.transcripts)

    return load_encoder_decoder(loading, S2T_ENCODER, writer)


def writer_of(
    model: Any, folder: Path, tokenizer: Any, precision: str, text: TranscriptConfig | None
) -> DecoderAdapter:
    """The decoder's side of a model."""
    start = model.config.decoder_start_token_id
    return DecoderAdapter(
        weights=s2t_decoder(model, folder, precision),
        tokens=special_tokens(model, start, model.config.vocab_size),
        decoded=lambda rows: [str(each) for each in tokenizer.batch_decode(rows, skip_special_tokens=True)],
        language=lambda segment: None if text is None else text.language,
        prompt=lambda language: [start],
        pieces=tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))),
    )
