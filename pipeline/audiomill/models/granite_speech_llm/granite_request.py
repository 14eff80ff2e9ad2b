"""How Granite Speech is asked, and how it hears.

T samples, F mel frames, M mels, N audio steps, D width of the language model.
Source of the spectrogram: transformers `GraniteSpeechFeatureExtractor`, which is the oracle and needs torchaudio.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.causal.hf_speech_llm import Layout, Wave
from audiomill.models.causal.language_model import on_a_fixed_day
from audiomill.models.frames.fbank import centred_window, powers, with_margins
from audiomill.models.preprocessing_files import extractor_settings
from audiomill.models.seq2seq.decoder_weights import tokenizer_in

_AUDIO = "<|audio|>"
ASKED = f"{_AUDIO}can you transcribe the speech into a written format?"
"""As the authors ask it."""
NUM_FFT, WINDOW, HOP, STACKED = 512, 400, 160, 2
POWER_FLOOR, FLOOR_BELOW_LOUDEST = 1e-10, 8.0


class GraniteProcessor:
    """Tokens of the request, and the spectrogram of a segment.

    Args:
        folder: of the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = tokenizer_in(folder)
        settings = extractor_settings(folder)
        self._window_size = int(settings.get("projector_window_size", 15))
        self._num_steps = self._window_size // int(settings.get("projector_downsample_rate", 5))
        mels = int(settings.get("n_mels", settings.get("feature_size", 80)))
        filters = mel_filter_bank(
            num_frequency_bins=NUM_FFT // 2 + 1,
            num_mel_filters=mels,
            min_frequency=0.0,
            max_frequency=MODEL_SAMPLE_RATE / 2,
            sampling_rate=MODEL_SAMPLE_RATE,
            norm=None,
            mel_scale="htk",
        )
        self._filters_NM = torch.from_numpy(np.asarray(filters, np.float64))
        self._window = centred_window(torch.hann_window(WINDOW, dtype=torch.float64), NUM_FFT)
        self._asked = ASKED
        if self.tokenizer.chat_template:
            chat = [{"role": "user", "content": ASKED}]
            with on_a_fixed_day():
                self._asked = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def __call__(self, wave: Wave) -> dict[str, Tensor]:
        """What the model is given of one segment."""
        features = self.features(wave)
        windows = -(-features.shape[1] // self._window_size)
        asked = self._asked.replace(_AUDIO, _AUDIO * (windows * self._num_steps))
        tokens = self.tokenizer(asked, return_tensors="pt")
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, "input_features": features}

    def features(self, wave: Wave) -> Tensor:
        """features_1F(2M): pairs of frames, each with the logarithms of its powers, floored below the loudest."""
        samples_BT = with_margins([wave.astype(np.float64)], NUM_FFT // 2, "reflect", torch.device("cpu"))
        mel_BFM = powers(samples_BT, self._window, HOP, NUM_FFT)[:, : len(wave) // HOP + 1] @ self._filters_NM
        log_BFM = mel_BFM.clamp_(min=POWER_FLOOR).log10_()
        log_BFM = torch.maximum(log_BFM, log_BFM.amax() - FLOOR_BELOW_LOUDEST).div_(4).add_(1)
        whole = log_BFM.shape[1] // STACKED * STACKED
        return log_BFM[:, :whole].reshape(1, -1, STACKED * log_BFM.shape[-1]).float()


def _audio_features(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """heard_ND; the projector fills the last window up."""
    out: Tensor = model.get_audio_features(inputs["input_features"], return_dict=True).pooler_output
    return out[0]


GRANITE_LAYOUT = Layout(
    kind="GraniteSpeechForConditionalGeneration",
    processor=GraniteProcessor,
    request=lambda processor, wave, language: processor(wave),
    audio_features=_audio_features,
)
