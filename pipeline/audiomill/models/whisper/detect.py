"""Language identification by Whisper. B rows, V vocabulary, K languages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from audiomill.models.seq2seq.cross_attention_cache import CrossKV
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.whisper.tokens import WhisperTokens


def detect_languages(
    weights: DecoderWeights, looked_at: CrossKV, tokens: WhisperTokens, among: Sequence[str]
) -> list[dict[str, float]]:
    """Probability of each language (or of those `among`, if any) for each row."""
    start = torch.full((len(looked_at), 1), tokens.start, device=weights.device)
    logits_BV = weights.logits(KVCache(weights, len(looked_at), 1).admit(looked_at, start))[:, 0]
    codes = sorted(among or tokens.languages, key=lambda code: tokens.languages[code])
    probability_BK = logits_BV[:, [tokens.languages[code] for code in codes]].softmax(-1)
    return [dict(zip(codes, row, strict=True)) for row in probability_BK.tolist()]
