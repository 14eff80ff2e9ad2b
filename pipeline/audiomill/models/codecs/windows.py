"""Recordings of any length through a codec's encoder in windows of bounded memory: the codes are those of one piece.

Causal encoders keep what their layers have seen; convolutions that see both sides get enough of either. C channels, T samples,
K codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.device import one_thread
from audiomill.models.watchdog import heartbeat

_WINDOW_S = 10.0
DAC_DILATIONS = 1 + 3 + 9
"""Of the residual units in each block of DAC's encoder, whose kernels of 7 reach 3 to each side."""


class Encoded(NamedTuple):
    """`scales`: loudness of each chunk, where a codec takes it out of the sound; else empty."""

    codes_KF: Tensor
    scales: tuple[float, ...] = ()


class Sound(NamedTuple):
    """A recording: `wave_TK` as it is, `given`: what the codec's feature extractor makes of all of it, which takes several
    times the memory; `device`: of the model."""

    wave_TK: NDArray[np.float32]
    given: Callable[[], Mapping[str, Tensor]]
    device: torch.device

    def window(self, first: int, last: int) -> Tensor:
        """wave_1CT of some samples, zeros behind the end."""
        part_TK = self.wave_TK[first:last]
        part_TK = np.pad(part_TK, ((0, last - first - len(part_TK)), (0, 0)))
        return torch.from_numpy(np.ascontiguousarray(part_TK.T))[None].to(self.device)


Encode = Callable[[Any, Sound], Encoded]
"""Model and recording -> codes."""


def in_one_piece(model: Any, sound: Sound) -> Encoded:
    """As transformers does it: for encoders whose layers see everything at once."""
    return Encoded(model.encode(**sound.given()).audio_codes[0])


def mimi(model: Any, sound: Sound) -> Encoded:
    """Convolutions and attention keep their past. transformers' own streaming does not finish a last frame that is not whole."""
    encoder = model.encoder
    windows = list(_windows(len(sound.wave_TK), int(model.config.sampling_rate), int(model.config.frame_size)))
    if len(windows) == 1:
        return in_one_piece(model, sound)
    past: dict[int, Any] = {}
    cache, result = None, []
    for first, last in windows:
        heartbeat()
        is_last = last == windows[-1][1]
        hidden = _through(encoder.encoder_seanet.layers, sound.window(first, last), past, is_last)
        out = encoder.encoder_transformer(hidden.transpose(1, 2), cache=cache, use_cache=True)
        cache, hidden = out.cache, out.last_hidden_state.transpose(1, 2)
        if encoder.downsample is not None:
            hidden = _onward(encoder.downsample, hidden, past, is_last)
        result.append(model.quantizer.encode(hidden, None).transpose(0, 1)[0])
    return Encoded(torch.cat(result, -1))


def encodec(model: Any, sound: Sound) -> Encoded:
    """The causal one of 24 kHz; see `encodec_chunks` for the other."""
    config = model.config
    bandwidth = config.target_bandwidths[-1]
    windows = list(_windows(len(sound.wave_TK), config.sampling_rate, config.hop_length))
    if len(windows) == 1 or not config.use_causal_conv or config.normalize:
        return Encoded(model.encode(**sound.given(), bandwidth=bandwidth).audio_codes[0, 0])
    past: dict[int, Any] = {}
    results = []
    for first, last in windows:
        heartbeat()
        hidden = _through(model.encoder.layers, sound.window(first, last), past, last == windows[-1][1])
        results.append(model.quantizer.encode(hidden, bandwidth).transpose(0, 1)[0])
    return Encoded(torch.cat(results, -1))


def encodec_chunks(model: Any, sound: Sound) -> Encoded:
    """Chunk by chunk, each with its own loudness, as the one of 48 kHz is defined. transformers' `encode` goes on to a last
    chunk that holds nothing but padding; it is left out. The mean that is its loudness has other last bits with another number
    of threads, so there is one."""
    config, result = model.config, []
    scales: list[float] = []
    for first in range(0, len(sound.wave_TK), config.chunk_stride):
        heartbeat()
        frame = sound.window(first, first + config.chunk_length)
        with one_thread():
            out = model.encode(frame, bandwidth=config.target_bandwidths[-1])
        result.append(out.audio_codes[0, 0])
        scales += [] if out.audio_scales[0] is None else out.audio_scales[0].reshape(-1).tolist()
    return Encoded(torch.cat(result, -1), tuple(scales))


def dac(model: Any, sound: Sound) -> Encoded:
    """Windows overlap by what one frame sees; frames of the overlap are dropped."""
    config, hop = model.config, int(model.config.hop_length)
    length, margin = -(-len(sound.wave_TK) // hop) * hop, _margin(config)
    results = []
    for first, last in _windows(length, config.sampling_rate, hop):
        heartbeat()
        start, stop = max(0, first - margin), min(length, last + margin)
        codes_KF = model.encode(sound.window(start, stop)).audio_codes[0]
        skipped = (first - start) // hop
        num_frames = None if last == length else (last - first) // hop
        results.append(codes_KF[:, skipped:] if num_frames is None else codes_KF[:, skipped : skipped + num_frames])
    return Encoded(torch.cat(results, -1))


def _margin(config: Any) -> int:
    """Samples that a frame of DAC's encoder sees to either side, in whole frames."""
    reach, scale = 3, 1
    for stride in config.downsampling_ratios:
        reach += scale * (3 * DAC_DILATIONS + stride)
        scale *= stride
    hop = int(config.hop_length)
    return (-(-(reach + scale) // hop) + 1) * hop


def _windows(length: int, rate: int, hop: int) -> Iterator[tuple[int, int]]:
    """Whole frames each; the last one takes the rest and is no shorter than the others."""
    size = max(1, round(_WINDOW_S * rate / hop)) * hop
    first = 0
    while length - first >= 2 * size:
        yield first, first + size
        first += size
    yield first, length


def _through(layers: Iterable[Any], hidden: Tensor, past: dict[int, Any], is_last: bool) -> Tensor:
    for layer in layers:
        hidden = _onward(layer, hidden, past, is_last)
    return hidden


def _onward(layer: Any, hidden: Tensor, past: dict[int, Any], is_last: bool) -> Tensor:
    """A layer of EnCodec's or Mimi's encoder on what follows what it has seen, which `past` keeps."""
    kind = type(layer).__name__
    if kind in ("EncodecConv1d", "MimiConv1d"):
        return _convolved(layer, hidden, past, is_last)
    if kind in ("EncodecResnetBlock", "MimiResnetBlock"):
        return _onward(layer.shortcut, hidden, past, is_last) + _through(layer.block, hidden, past, is_last)
    if kind == "EncodecLSTM":
        steps, past[id(layer)] = layer.lstm(hidden.permute(2, 0, 1), past.get(id(layer)))
        hidden = (steps + hidden.permute(2, 0, 1)).permute(1, 2, 0)
        return hidden
    out: Tensor = layer(hidden)
    return out


def _convolved(layer: Any, hidden: Tensor, past: dict[int, Any], is_last: bool) -> Tensor:
    before, reach = past.get(id(layer)), int(layer.padding_total)
    after = int(layer._get_extra_padding_for_conv1d(hidden)) if is_last else 0
    padded = layer._pad1d(hidden, (reach if before is None else 0, after), mode=layer.pad_mode)
    if before is not None:
        padded = torch.cat([before, padded], -1)
    past[id(layer)] = hidden[..., hidden.shape[-1] - reach :]
    out: Tensor = layer.conv(padded)
    return out
