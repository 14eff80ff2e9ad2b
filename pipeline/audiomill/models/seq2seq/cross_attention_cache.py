"""The cross-attention cache of a decoder: keys and values of the encoder, computed once for each row.

B rows, H heads, F encoder frames, D model width, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audiomill.models.seq2seq.decoder_weights import DecoderWeights


class CrossKV(NamedTuple):
    """Cross-attention keys and values of rows with equally many frames: for each layer (B, H, F, E)."""

    keys: list[Tensor]
    values: list[Tensor]

    def __len__(self) -> int:
        return len(self.keys[0])

    def take(self, rows: Sequence[int]) -> CrossKV:
        if list(rows) == list(range(len(self))):
            return self
        return CrossKV([key[rows] for key in self.keys], [value[rows] for value in self.values])

    def windows(self, starts: Sequence[int], length: int) -> CrossKV:
        """Windows of a single row, as rows of their own.

        Args:
            starts: their first frames.
            length: frames of each.
        """

        def cut(whole_1HFE: Tensor) -> Tensor:
            return torch.cat([whole_1HFE[:, :, start : start + length] for start in starts])

        return CrossKV([cut(key) for key in self.keys], [cut(value) for value in self.values])


class DynamicCrossCache:
    """Groups of any lengths, one behind the other: no memory for padding. For CPUs, where shapes may change."""

    def __init__(self) -> None:
        self._groups: list[CrossKV] = []

    @property
    def frames(self) -> int | None:
        """Frames that rows must have to join: any."""
        return None

    def add(self, group: CrossKV) -> None:
        """New rows, behind those that are there."""
        self._groups.append(group)

    def groups(self, _width: int) -> Sequence[CrossKV]:
        """Keys and values of all rows."""
        return self._groups

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these, which move together in their order."""
        groups, first = [], 0
        for group in self._groups:
            group_rows = [row - first for row in rows if first <= row < first + len(group)]
            first += len(group)
            if group_rows:
                groups.append(group.take(group_rows))
        self._groups = groups

    def kept_order(self, rows: Sequence[int]) -> list[int]:
        """As they are: groups stay together."""
        return list(rows)


class NoCrossCache:
    """Of decoders that have the audio in front of the text."""

    @property
    def frames(self) -> int | None:
        """Frames that rows must have to join: any."""
        return None

    def add(self, _group: CrossKV) -> None:
        """Nothing is kept."""

    def groups(self, _width: int) -> Sequence[CrossKV]:
        """None."""
        return []

    def keep(self, rows: Sequence[int]) -> None:
        """Nothing is kept."""

    def kept_order(self, rows: Sequence[int]) -> list[int]:
        """As they are."""
        return list(rows)


class StaticCrossCache:
    """Rows of one length at a time, in memory that never moves. For GPUs, whose recorded steps need fixed addresses.

    Args:
        weights: the decoder's.
        capacity: most rows.
        max_frames: longest row.
    """

    def __init__(self, weights: DecoderWeights, capacity: int, max_frames: int) -> None:
        width = weights.width
        self._capacity, self._num_heads, self._head_width = capacity, weights.num_heads, width // weights.num_heads
        num_layers, size = len(weights.layers), capacity * max_frames * width
        self._keys, self._values = [[weights.zeros(size) for _ in range(num_layers)] for _ in range(2)]
        self._num_rows, self._frames = 0, 0

    @property
    def frames(self) -> int | None:
        """Frames that rows must have to join: those of the rows that are there."""
        return self._frames if self._num_rows else None

    def add(self, group: CrossKV) -> None:
        """New rows, behind those that are there."""
        frames = group.keys[0].shape[2]
        assert self._num_rows == 0 or frames == self._frames, "rows of a slab have equally many frames"
        self._frames = frames
        rows = slice(self._num_rows, self._num_rows + len(group))
        for slabs, news in ((self._keys, group.keys), (self._values, group.values)):
            for slab, new in zip(slabs, news, strict=True):
                self._view(slab)[rows] = new
        self._num_rows = rows.stop

    def groups(self, width: int) -> Sequence[CrossKV]:
        """Keys and values of the first `width` slots, as one group."""
        return [CrossKV([self._view(k)[:width] for k in self._keys], [self._view(v)[:width] for v in self._values])]

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these: the n-th of them goes to slot n."""
        moved = [(to, at) for to, at in enumerate(rows) if to != at]
        if moved:
            to, at = (list(each) for each in zip(*moved, strict=True))
            for slab in (*self._keys, *self._values):
                view = self._view(slab)
                view[to] = view[at]
        self._num_rows = len(rows)

    def kept_order(self, rows: Sequence[int]) -> list[int]:
        """The last ones fill the slots of those that left."""
        num_kept = len(rows)
        movers = [row for row in rows if row >= num_kept]
        stay = set(rows)
        return [slot if slot in stay else movers.pop() for slot in range(num_kept)]

    def _view(self, slab: Tensor) -> Tensor:
        shape = (self._capacity, self._num_heads, self._frames, self._head_width)
        return slab[: self._capacity * self._num_heads * self._frames * self._head_width].view(shape)


def cross_kv(weights: DecoderWeights, hidden_BFD: Tensor) -> CrossKV:
    """What the decoder looks at, from the encoder's output. On CPU row by row, as the encoder does, and with the frames of a
    value side by side in memory, where a step sums over them."""
    batch, frames, width = hidden_BFD.shape
    is_cpu, size_of_head = hidden_BFD.device.type == "cpu", width // weights.num_heads
    shape = (-1, frames, 2, weights.num_heads, size_of_head)
    size = 1 if is_cpu else batch
    keys, values = [], []
    for layer in weights.layers:
        key_BHFE = hidden_BFD.new_empty(batch, weights.num_heads, frames, size_of_head)
        across_BHEF = hidden_BFD.new_empty(batch, weights.num_heads, size_of_head, frames)
        value_BHFE = across_BHEF.transpose(-1, -2) if is_cpu else torch.empty_like(key_BHFE)
        assert layer.cross is not None, "a decoder that looks at an encoder"
        for at in range(0, batch, size):
            result = layer.cross.kv(hidden_BFD[at : at + size]).view(shape).permute(2, 0, 3, 1, 4)
            key_BHFE[at : at + size], value_BHFE[at : at + size] = result[0], result[1]
        keys.append(key_BHFE)
        values.append(value_BHFE)
    return CrossKV(keys, values)
