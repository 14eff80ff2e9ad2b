"""What a text is worth besides what its decoder says, while beams write it: words by a language model, audio that was looked at.

B rows, K beams, V vocabulary, H heads, F encoder frames. Sources: Gulcehre et al. 2015 (arXiv:1503.03535) for shallow fusion,
Hannun et al. 2019 (arXiv:1904.02619) for the rule on ends, Chorowski and Jaitly 2016 (arXiv:1612.02695) for coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from audiomill.config.text import SearchConfig
from audiomill.models.ctc.context import Context, FusionWeights, Prefix
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.ngram import NgramModel, local_file
from audiomill.models.ctc.rescore import Rescorer
from audiomill.models.ctc.word_pieces import mark_of
from audiomill.storage.fs import Place

END_FACTOR = 1.5
"""A text ends where that is more probable than the best other token to this power."""
COVERED = 0.5
"""Attention that a frame has had in sum when it counts as covered."""
NO_DELIMITER = ""


class Fusion:
    """A language model over words beside a decoder of word pieces.

    Args:
        pieces: every token of the decoder.
        config: weights.
        lm: over words; None: none.
        rescorer: of whole texts; None: none.
    """

    def __init__(self, pieces: Sequence[str], config: SearchConfig, lm: Any | None, rescorer: Rescorer | None) -> None:
        vocabulary = CtcVocabulary(tuple(pieces), blank=-1, delimiter=NO_DELIMITER, mark=mark_of(pieces))
        for_words = (config.word_insertion_score, config.unk_score) if lm is not None else (0.0, 0.0)
        self._context = Context(vocabulary, FusionWeights(config.lm_weight, *for_words), lm)
        self._begins_V = torch.tensor([vocabulary.begins_word(piece) for piece in pieces]).double()
        self.coverage_score, self.num_best, self._rescorer = config.coverage_score, config.num_best, rescorer
        self._rescore_weight = config.rescore_weight
        self.steers = lm is not None or rescorer is not None or bool(config.coverage_score)
        """Whether texts are worth something besides: else beams are those of `generate`, and only several are kept."""

    @property
    def empty(self) -> Prefix:
        """Of a text that begins."""
        return self._context.empty

    @property
    def num_searched(self) -> int | None:
        """Texts that the search is to give; None: all its beams."""
        return self.num_best if self._rescorer is None else None

    def added(self, prefixes: Sequence[Sequence[Prefix]], end: int, device: torch.device) -> Tensor:
        """What each token adds to each beam, (B, K, V): a token that begins a word ends the one before it."""
        worth_BK = torch.tensor([[prefix.word_worth for prefix in row] for row in prefixes], dtype=torch.float64)
        ends_BK = torch.tensor([[self._context.ended(prefix)[1] for prefix in row] for row in prefixes])
        result = worth_BK[..., None] * self._begins_V
        result[..., end] = ends_BK.double()
        return result.to(device)

    def extended(self, prefix: Prefix, token: int) -> Prefix:
        """With one more token."""
        return self._context.extended(prefix, token, prefix.states)

    def whole(self, prefix: Prefix) -> Prefix:
        """As a text that has ended."""
        return self._context.ended(prefix)[0]

    def rescored(self, texts: Sequence[str]) -> list[float] | None:
        """Log-probability of texts by the causal language model; None without one."""
        return None if self._rescorer is None else self._rescorer.score(texts)

    def with_rescored(self, score: float, rescored: float | None) -> float:
        """A whole text's score with that."""
        return score + self._rescore_weight * (rescored or 0.0)


def fusion_of(pieces: Sequence[str], config: SearchConfig, options: dict[str, Any], device: str) -> Fusion:
    """By the options of a run.

    Raises:
        UsageError: a language model cannot be used.
    """
    lm = NgramModel(local_file(Place(config.lm, options), "--lm")) if config.lm else None
    rescorer = Rescorer(config.rescore_model, options, device) if config.rescore_model else None
    return Fusion(pieces, config, lm, rescorer)


def with_ends_ruled(logprobs_BKV: Tensor, end: int) -> Tensor:
    """Ends that are too improbable beside the best other token are never taken: the language model likes short texts."""
    others = logprobs_BKV.clone()
    others[..., end] = -torch.inf
    is_early = logprobs_BKV[..., end] <= END_FACTOR * others.amax(-1)
    result = logprobs_BKV.clone()
    result[..., end] = result[..., end].masked_fill(is_early, -torch.inf)
    return result


class Coverage:
    """How much of the audio each beam's text has looked at.

    Args:
        num_rows, num_beams: B and K.
    """

    def __init__(self, num_rows: int, num_beams: int) -> None:
        self._shape = (num_rows, num_beams)
        self._sum_BKF: Tensor | None = None

    def looked(self, scores_BHLF: Tensor) -> Tensor:
        """Frames that are covered for the first time, by beam: new_BK.

        Args:
            scores_BHLF: cross-attention scores of the step behind the beams' last tokens; L: of all beams of a row, side by side,
                each with equally many positions, of which the last one counts.
        """
        rows, heads, length, frames = scores_BHLF.shape
        last_BHKF = scores_BHLF.view(rows, heads, self._shape[1], length // self._shape[1], frames)[:, :, :, -1]
        weight_BKF = last_BHKF.float().softmax(-1).mean(1)
        before = torch.zeros_like(weight_BKF) if self._sum_BKF is None else self._sum_BKF
        self._sum_BKF = before + weight_BKF
        return ((self._sum_BKF > COVERED) & (before <= COVERED)).sum(-1).double()

    def reorder(self, parents_BK: Tensor) -> None:
        """Beams go on from others of their row."""
        assert self._sum_BKF is not None, "something was looked at"
        self._sum_BKF = self._sum_BKF.gather(1, parents_BK[..., None].expand_as(self._sum_BKF))
