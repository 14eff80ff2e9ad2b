"""Frames of an encoder, through a projector, between the two halves of a prompt.

F frames, E width of the encoder, S steps, P prefix, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiomill.models.base import Utterance
from audiomill.models.causal.activation_trace import Stage
from audiomill.models.causal.language_model import LanguageModel
from audiomill.models.speech_llm.projector import Projector
from audiomill.models.vectors.frozen_encoder import FrozenEncoder


class Projected:
    """See `audiomill.models.causal.speech_llm_model.AudioPrefixEncoder`.

    Args:
        encoder: frozen.
        projector: on the language model's device.
        lm: the language model.
        prompt: tokens before and behind the audio.
        rates: frames and steps a second.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        projector: Projector,
        lm: LanguageModel,
        prompt: tuple[list[int], list[int]],
        rates: tuple[float, float],
    ) -> None:
        self.encoder, self._projector, self._lm, self._rates = encoder, projector, lm, rates
        self._before_LD, self._after_LD = (lm.embedded(tokens) for tokens in prompt)

    def padded_length(self, num_samples: int) -> int:
        return self.encoder.padded_length(num_samples)

    def prefixes(self, batch: Sequence[Utterance]) -> list[Tensor]:
        """prefix_PD of each utterance."""
        return [self._lm.prefix(self.parts(frames_FE)) for frames_FE in self.encoder.frames(batch)]

    @torch.inference_mode()
    def stages(self, utterance: Utterance) -> tuple[Stage, ...]:
        """Frames of the encoder, steps of the projector."""
        (frames_FE,) = self.encoder.frames([utterance])
        _, steps_SD, _ = self.parts(frames_FE)
        frame_rate, step_rate = self._rates
        return (
            Stage("encoder output", frames_FE.float().cpu().numpy().T, frame_rate, "What the frozen encoder hears."),
            Stage(
                "projector output",
                steps_SD.float().cpu().numpy().T,
                step_rate,
                "Several frames became one step, as wide and as loud as the language model's own tokens: it reads them as such.",
            ),
        )

    def parts(self, frames_FE: Tensor) -> list[Tensor]:
        """Prompt, audio, prompt, each as `inputs_embeds` takes them. Rows alone: a product's last bits depend on how many
        rows it has."""
        weight = next(self._projector.parameters())
        steps_SD = self._projector(frames_FE[None].to(weight.dtype))[0]
        return [self._before_LD, steps_SD.to(self._before_LD.dtype), self._after_LD]
