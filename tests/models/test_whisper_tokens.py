"""The token state machine against Hugging Face's logits processors, on random sequences."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from audiomill.models.seq2seq.token_rules import TokenRules
from audiomill.models.whisper.tokens import WhisperTokens

TOKENS = WhisperTokens(
    size=140,
    start=21,
    end=20,
    transcribe=24,
    translate=23,
    no_speech=26,
    no_timestamps=27,
    first_timestamp=28,
    languages={"en": 22},
    suppress=(3, 4, 21, 22, 23, 24, 26),
    begin_suppress=(5, 20),
)


def hf_mask(history: torch.Tensor, logits: torch.Tensor, timestamps: bool) -> torch.Tensor:
    config = GenerationConfig(no_timestamps_token_id=27, eos_token_id=20, max_initial_timestamp_index=50)
    scores = SuppressTokensAtBeginLogitsProcessor(list(TOKENS.begin_suppress), begin_index=1)(history, logits.clone())
    scores = SuppressTokensLogitsProcessor(list(TOKENS.suppress))(history, scores)
    if timestamps:
        scores = WhisperTimeStampLogitsProcessor(config, begin_index=1)(history, scores)
    return scores


@given(
    seed=st.integers(0, 10_000),
    timestamps=st.booleans(),
    num_rows=st.integers(1, 5),
    sharpness=st.sampled_from([0.5, 3.0, 8.0]),
)
@settings(max_examples=60, deadline=None)
def test_rules_equal_hugging_face_processors(seed: int, timestamps: bool, num_rows: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    history = torch.full((num_rows, 1), TOKENS.start)
    rules = TokenRules(TOKENS, num_rows, timestamps, torch.device("cpu"))
    rows = slice(0, num_rows)
    for step in range(12):
        logits = torch.randn(num_rows, TOKENS.size, generator=generator) * sharpness
        logits[:, TOKENS.first_timestamp :] += torch.randint(0, 3, (num_rows, 1), generator=generator) * sharpness
        ours, theirs = rules.mask(logits, rows), hf_mask(history, logits, timestamps)
        assert torch.equal(torch.isinf(ours), torch.isinf(theirs))
        if step > 0:
            best, logprob = rules.most_probable(logits.clone(), rows)
            expected = theirs.log_softmax(-1).max(-1)
            assert torch.equal(best, expected.indices) and torch.allclose(logprob, expected.values, atol=1e-4)
        chosen = ours.softmax(-1).multinomial(1, generator=generator)[:, 0]
        rules.advance(chosen, rows)
        history = torch.cat([history, chosen[:, None]], 1)


def test_dropping_rows_keeps_the_state_of_the_others() -> None:
    generator = torch.Generator().manual_seed(3)
    whole = TokenRules(TOKENS, 4, True, torch.device("cpu"))
    part = TokenRules(TOKENS, 4, True, torch.device("cpu"))
    rows = torch.tensor([1, 3])
    first = torch.tensor([30, 31, 40, 28])
    for rules in (whole, part):
        rules.advance(first, slice(0, 4))
    part.move(rows)
    logits = torch.randn(4, TOKENS.size, generator=generator)
    assert torch.equal(whole.mask(logits, slice(0, 4))[rows], part.mask(logits[rows], slice(0, 2)))
    part.open(slice(2, 3))  # a new text behind them
    assert torch.equal(
        part.mask(logits[:1], slice(2, 3)), TokenRules(TOKENS, 1, True, logits.device).mask(logits[:1], slice(0, 1))
    )
