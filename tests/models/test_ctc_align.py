"""Forced alignment: the most probable of all alignments, found by trying them all; words where they are."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.models.ctc.align import _best_path, _emitted, _tokens, word_frames
from audiomill.models.ctc.greedy_decoding import CtcVocabulary

LETTERS = CtcVocabulary(("_", "|", "A", "B"), 0, "|")


def collapsed(labels: tuple[int, ...]) -> list[int]:
    kept = [label for at, label in enumerate(labels) if at == 0 or labels[at - 1] != label]
    return [label for label in kept if label != 0]


@given(st.lists(st.sampled_from(["A", "B", "AB", "AA"]), min_size=1, max_size=2), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_path_is_the_most_probable_of_all(words: list[str], seed: int) -> None:
    tokens, _ = _tokens(words, LETTERS)
    logits = np.random.default_rng(seed).normal(size=(6, 4)) * 2
    logprobs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    fits = [labels for labels in product(range(4), repeat=6) if collapsed(labels) == tokens]
    found = word_frames(words, logprobs, LETTERS)
    if not fits:
        assert found is None
        return
    states = np.full(2 * len(tokens) + 1, 0)
    states[1::2] = tokens
    path = _best_path(_emitted(states, logprobs, 0), states)
    ours = tuple(int(states[s]) for s in path)
    assert collapsed(ours) == tokens
    best = max(sum(logprobs[f, label] for f, label in enumerate(labels)) for labels in fits)
    assert abs(sum(logprobs[f, label] for f, label in enumerate(ours)) - best) < 1e-4
    assert found is not None and len(found) == len(words)
    edges = [edge for span in found for edge in span]
    assert edges == sorted(edges)


def test_words_figures_and_marks_are_found_where_they_are() -> None:
    """A at frames 2 and 3, something that is not in the vocabulary at 6 and 7, B at 10."""
    logprobs = np.full((12, 4), -9.0, np.float32)
    logprobs[:, 0] = -0.1
    for frames, token in (([2, 3], 2), ([4], 1), ([6, 7], 3), ([8], 1), ([10], 3)):
        logprobs[frames, 0], logprobs[frames, token] = -9.0, -0.1
    assert word_frames(["\u00e1,", "42", "b."], logprobs, LETTERS) == [(2, 4), (6, 8), (10, 11)]
    assert word_frames([], logprobs, LETTERS) is None
