"""What models of an encoder share, whatever writes text behind it: one pass, and what is read off it.

B batch, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from audiomill.models.base import (
    CONV,
    Aligner,
    FallbackPolicy,
    OnProgress,
    Parity,
    Readout,
    RequestedOutputs,
    Utterance,
)
from audiomill.models.finite import first_not_finite, is_finite, not_finite
from audiomill.models.frames.frame_network import FrameNetwork, cores
from audiomill.models.vectors.forward_hooks import LayerTaps, without_layers_above
from audiomill.models.vectors.readout import Quantizer, read_out


class EncodingModel:
    """The encoder's side of `audiomill.models.base.SpeechModel`.

    Args:
        network: changed in place: layers that nobody wants are dropped where no text is.
        requested: what to give.
        quantizers: by name of the want.
        writes: something behind the encoder is wanted, so that all its layers are.
    """

    on_progress: OnProgress | None = None
    reports_progress = False
    fallback: FallbackPolicy | None = None
    aligner: Aligner | None = None

    def __init__(
        self, network: FrameNetwork, requested: RequestedOutputs, quantizers: Mapping[str, Quantizer], writes: bool
    ) -> None:
        self._network, self._feed, self._wants, self._quantizers = network, network.feed, requested, quantizers
        self._writes, self._stack = writes, requested.layers - {CONV}
        self._taps = LayerTaps(network.stack.layers, self._stack, network.final_norm)
        if not writes:
            without_layers_above(network.stack, max(self._stack, default=0))

    def padded_length(self, num_samples: int) -> int:
        """Rows are padded to the longest of their batch."""
        return num_samples

    def spare_memory(self) -> None:
        """Nothing is kept between batches."""

    @torch.inference_mode()
    def parity(self, utterance: Utterance) -> Parity:
        """With transformers' own processor and forward pass."""
        result = self._network.parity(utterance)
        self._taps.taken()
        return result

    def _encoded(self, batch: Sequence[Utterance]) -> Tensor:
        """hidden_BFD of the last layer.

        Raises:
            RunError: it holds values that are no numbers, where text is wanted.
        """
        inputs, body = self._feed([utterance.pcm_T for utterance in batch]), self._network.body
        hidden_BFD: Tensor = body(**inputs).last_hidden_state
        if self._writes and not is_finite(hidden_BFD):
            raise not_finite(first_not_finite(body, lambda: body(**inputs)) or "the encoder")
        return hidden_BFD

    def _read_out(self, batch: Sequence[Utterance], device: torch.device) -> Sequence[Readout]:
        """What is wanted of the hidden states of the last pass."""
        if not self._wants.layers:
            return [Readout()] * len(batch)
        return read_out(self._wants, self._taps.taken(), None, self._quantizers, cores(batch, self._feed, device))
