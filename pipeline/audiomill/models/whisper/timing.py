"""When each token was said: dynamic time warping over the cross-attention of Whisper's alignment heads.

B rows, H alignment heads, N tokens, F encoder frames.
Source: openai/whisper timing.py (the heads, normalisation over tokens, median filter); Sakoe & Chiba 1978.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.seq2seq.cross_attention_cache import cross_kv
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.kv_cache import KVCache

Heads = tuple[tuple[int, int], ...]
"""(layer, head) pairs."""
MEDIAN_WIDTH = 7
MEDIAN_OF_7 = ((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4))
"""Exchanges that bring the median of seven values to the place in the middle (Devillard 1998)."""
LATE_FRAMES = 5
"""Attention comes to a word this much (100 ms) after it begins: measured by benchmarks/word_times.py, which finds a bias
of 100 ms without it."""
FROM_BOTH, FROM_TOKEN, FROM_FRAME = 0, 1, 2


def heads_of(given: Sequence[Sequence[int]] | None, num_layers: int, num_heads: int) -> Heads:
    """The checkpoint's alignment heads, or else all heads of the upper half of the decoder. Distilled checkpoints keep the
    list of the larger decoder that they come from: its heads are not theirs."""
    if given and all(layer < num_layers and head < num_heads for layer, head in given):
        return tuple((int(layer), int(head)) for layer, head in given)
    return tuple((layer, head) for layer in range(num_layers // 2, num_layers) for head in range(num_heads))


@torch.inference_mode()
def token_costs(
    weights: DecoderWeights,
    hidden_BFD: Tensor,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    num_frames: Sequence[int],
    end: int,
    heads: Heads,
) -> list[Tensor]:
    """How badly each text token, and the end behind them, fits each frame: cost_NF of each row.

    Args:
        weights: the decoder's.
        hidden_BFD: encoder output.
        prompts: without timestamps, all of one length.
        texts: text tokens, no timestamps.
        num_frames: frames of each row's own audio.
        end: the end token.
        heads: see `heads_of`.

    Returns:
        For each row `len(text) + 1` times its own frames.
    """
    before = len(prompts[0])
    longest = max(map(len, texts)) + 1
    tokens_BN = torch.full((len(texts), before + longest), end, device=hidden_BFD.device)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        tokens_BN[row, : before + len(text)] = torch.tensor([*prompt, *text], device=hidden_BFD.device)
    state = KVCache(weights, len(texts), tokens_BN.shape[1], watched=heads)
    state.admit(cross_kv(weights, hidden_BFD), tokens_BN)
    scores_BHNF = state.watched_scores()
    costs = []
    for row, (text, frames) in enumerate(zip(texts, num_frames, strict=True)):
        # The scores at a token are those that chose the next one: what stands before a token tells where it is.
        softmax = scores_BHNF[row, :, : before + len(text) + 1, :frames].float().softmax(-1)
        spread, mean = torch.std_mean(softmax, dim=-2, keepdim=True, unbiased=False)
        normed = _median((softmax - mean) / spread.clamp(min=1e-8)).mean(0)
        costs.append(-normed[before - 1 : -1])
    return costs


def token_frames(costs: Sequence[Tensor]) -> list[NDArray[np.int64]]:
    """First frame of every token of each row, not falling, from its `token_costs`."""
    sizes = [tuple(cost.shape) for cost in costs]
    cost_BNF = costs[0].new_zeros(len(costs), max(n for n, _ in sizes), max(f for _, f in sizes))
    for row, (cost, (tokens, frames)) in enumerate(zip(costs, sizes, strict=True)):
        cost_BNF[row, :tokens, :frames] = cost
    paths = warp(cost_BNF, [tokens for tokens, _ in sizes], [frames for _, frames in sizes])
    return [_first_frames(path, tokens) for path, (tokens, _) in zip(paths, sizes, strict=True)]


def _median(x_HNF: Tensor) -> Tensor:
    """Median over neighbouring frames."""
    pad = MEDIAN_WIDTH // 2
    if x_HNF.shape[-1] <= pad:
        return x_HNF
    padded = torch.nn.functional.pad(x_HNF, (pad, pad), mode="reflect")
    values = [padded[..., shift : shift + x_HNF.shape[-1]] for shift in range(MEDIAN_WIDTH)]
    for low, high in MEDIAN_OF_7:
        values[low], values[high] = torch.minimum(values[low], values[high]), torch.maximum(values[low], values[high])
    return values[pad]


def warp(cost_BNF: Tensor, num_tokens: Sequence[int], num_frames: Sequence[int]) -> list[NDArray[np.int64]]:
    """Cheapest monotonic path through each row's own corner of its cost matrix, all rows at once along anti-diagonals.

    Returns:
        path_S2 of (token, frame) pairs for each row, from (0, 0) to the row's last token and frame.
    """
    cost_DBN = _by_diagonal(cost_BNF)
    diagonals, batch, tokens = cost_DBN.shape
    # total_DBN[d, b, n]: cheapest path to token n and frame d - n, both counted from 1; in front of them it is infinite.
    total_DBN = cost_DBN.new_full((diagonals, batch, tokens + 1), torch.inf)
    total_DBN[0, :, 0] = 0
    for at in range(2, diagonals):
        both, token, frame = _ways(total_DBN[at - 2], total_DBN[at - 1])
        torch.add(torch.minimum(torch.minimum(both, token), frame), cost_DBN[at], out=total_DBN[at, :, 1:])
    both, token, frame = _ways(total_DBN[:-2], total_DBN[1:-1])
    steps_DBN = torch.where(token <= frame, FROM_TOKEN, FROM_FRAME)
    steps_DBN[(both <= token) & (both <= frame)] = FROM_BOTH
    steps_BDN = steps_DBN.to(torch.int8).transpose(0, 1).cpu().numpy()
    return [_walk_back(*each) for each in zip(steps_BDN, num_tokens, num_frames, strict=True)]


def _by_diagonal(cost_BNF: Tensor) -> Tensor:
    """cost_DBN: of token n and frame d - n, both counted from 1, at [d, b, n - 1]; infinite where there is no such frame."""
    batch, tokens, frames = cost_BNF.shape
    diagonals = tokens + frames + 1
    cost_BND = cost_BNF.new_full((batch, tokens, diagonals), torch.inf)
    strides = (tokens * diagonals, diagonals + 1, 1)
    cost_BND.as_strided(cost_BNF.shape, strides, storage_offset=2).copy_(cost_BNF)
    return cost_BND.permute(2, 0, 1).contiguous()


def _ways(two_before: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Totals of the cells that a path may come from: the token and the frame before, the token, the frame."""
    return two_before[..., :-1], before[..., :-1], before[..., 1:]


def _walk_back(steps_DN: NDArray[np.int8], token: int, frame: int) -> NDArray[np.int64]:
    path = []
    while token and frame:
        path.append((token - 1, frame - 1))
        step = steps_DN[token + frame - 2, token - 1]
        token -= step in (FROM_BOTH, FROM_TOKEN)
        frame -= step in (FROM_BOTH, FROM_FRAME)
    return np.array(path[::-1], np.int64)


def _first_frames(path_S2: NDArray[np.int64], num_tokens: int) -> NDArray[np.int64]:
    """Where each token of the path begins."""
    first = np.searchsorted(path_S2[:, 0], np.arange(num_tokens), side="left")
    result: NDArray[np.int64] = path_S2[np.minimum(first, len(path_S2) - 1), 1]
    return np.maximum(result - LATE_FRAMES, 0)
