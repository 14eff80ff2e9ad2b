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

from audiomill.models.causal.hf_speech_llm import Layout, Wave
from audiomill.models.causal.language_model import on_a_fixed_day
from audiomill.models.frames.fbank import MelFrontEnd, MelSpec, mel_filters
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
        spec = MelSpec(
            filters_NM=mel_filters(mels, NUM_FFT),
            window=WINDOW,
            hop=HOP,
            num_fft=NUM_FFT,
            log=lambda power: power.clamp(min=POWER_FLOOR).log10(),
            is_periodic=True,
            margin="reflect",
            num_frames=lambda num_samples: num_samples // HOP + 1,
        )
        self._mels = MelFrontEnd(spec, torch.device("cpu"))
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
        log_BFM, *_ = self._mels.of_waves([wave.astype(np.float64)])
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
