"""What stands between a speech encoder and a language model.

B batch, F frames, E width of the encoder, K frames of a step, S steps, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.models.causal.activation_trace import Stage
from audiomill.models.causal.language_model import LanguageModel
from audiomill.models.vectors.frozen_encoder import FrozenEncoder


class Projector(nn.Module):
    """K frames side by side -> Linear, RMSNorm, GELU, Linear, RMSNorm -> a step that the language model takes for a token.

    The last norm makes steps as loud as the model's own embeddings: without it they are some thirty times quieter, and the
    model hears its prompt alone.

    Args:
        encoder_width: E.
        stack: K.
        hidden: width inside.
        lm_width: D.
        loudness: root mean square of the language model's embeddings.
    """

    def __init__(self, encoder_width: int, stack: int, hidden: int, lm_width: int, loudness: float = 1.0) -> None:
        super().__init__()
        self._stack = stack
        self.first = nn.Linear(encoder_width * stack, hidden)
        self.first_norm = nn.RMSNorm(hidden, eps=1e-6)
        self.second = nn.Linear(hidden, lm_width)
        self.second_norm = nn.RMSNorm(lm_width, eps=1e-6)
        nn.init.constant_(self.second_norm.weight, loudness)

    def forward(self, frames_BFE: Tensor) -> Tensor:
        """steps_BSD: a last step that is not whole is filled up with zeros; nothing is dropped."""
        padded = F.pad(frames_BFE, (0, 0, 0, -frames_BFE.shape[1] % self._stack))
        stacked = padded.reshape(len(padded), -1, padded.shape[2] * self._stack)
        out: Tensor = self.second_norm(self.second(F.gelu(self.first_norm(self.first(stacked)))))
        return out

    def num_steps(self, frames: int) -> int:
        """S of so many frames."""
        return -(-frames // self._stack)


def loudness_of(embeddings_VD: Tensor) -> float:
    """Root mean square of a language model's embeddings; rows that were never trained (zeros) do not count."""
    rms_V = embeddings_VD.detach().float().pow(2).mean(1).sqrt()
    used = rms_V[rms_V > 0]
    return float(torch.median(used)) if len(used) else 1.0


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

    def prefixes(self, batch: Sequence[Segment]) -> list[Tensor]:
        """prefix_PD of each segment."""
        return [self._lm.prefix(self.parts(frames_FE)) for frames_FE in self.encoder.frames(batch)]

    @torch.inference_mode()
    def stages(self, segment: Segment) -> tuple[Stage, ...]:
        """Frames of the encoder, steps of the projector."""
        (frames_FE,) = self.encoder.frames([segment])
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
