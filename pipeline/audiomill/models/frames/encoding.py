"""What models of an encoder share, whatever writes text behind it: one pass, and what is read off it.

B batch, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import CONV, Parity, Readout, RequestedOutputs, SpeechModel
from audiomill.models.finite import first_not_finite, is_finite, not_finite
from audiomill.models.frames.frame_network import FrameNetwork, cores
from audiomill.models.vectors.forward_hooks import LayerTaps, without_layers_above
from audiomill.models.vectors.readout import Quantizer, read_out


class EncodingModel(SpeechModel):
    """The encoder's side of `audiomill.models.base.SpeechModel`.

    Args:
        network: changed in place: layers that nobody wants are dropped where no text is.
        requested: what to give.
        quantizers: by name of the want.
        writes: something behind the encoder is wanted, so that all its layers are.
    """

    def __init__(
        self, network: FrameNetwork, requested: RequestedOutputs, quantizers: Mapping[str, Quantizer], writes: bool
    ) -> None:
        self._network, self._feed, self._wants, self._quantizers = network, network.feed, requested, quantizers
        self._writes, self._stack = writes, requested.layers - {CONV}
        self._taps = LayerTaps(network.stack.layers, self._stack, network.final_norm)
        if not writes:
            without_layers_above(network.stack, max(self._stack, default=0))

    @torch.inference_mode()
    def parity(self, segment: Segment) -> Parity:
        """With transformers' own processor and forward pass."""
        result = self._network.parity(segment)
        self._taps.taken()
        return result

    def _encoded(self, batch: Sequence[Segment]) -> Tensor:
        """hidden_BFD of the last layer.

        Raises:
            RunError: it holds values that are no numbers, where text is wanted.
        """
        inputs, body = self._feed([segment.pcm_T for segment in batch]), self._network.body
        hidden_BFD: Tensor = body(**inputs).last_hidden_state
        if self._writes and not is_finite(hidden_BFD):
            raise not_finite(first_not_finite(body, lambda: body(**inputs)) or "the encoder")
        return hidden_BFD

    def _read_out(self, batch: Sequence[Segment], device: torch.device) -> Sequence[Readout]:
        """What is wanted of the hidden states of the last pass."""
        if not self._wants.layers:
            return [Readout()] * len(batch)
        return read_out(self._wants, self._taps.taken(), None, self._quantizers, cores(batch, self._feed, device))
