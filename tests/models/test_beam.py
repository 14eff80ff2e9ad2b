"""Beam search against trying everything; language models against arithmetic by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiomill.config.text import SearchConfig
from audiomill.errors import InputError
from audiomill.models.ctc.beam import ScoredText, prefix_beam_search
from audiomill.models.ctc.beam_search import BeamDecoder, Stretch
from audiomill.models.ctc.context import Context, FusionWeights
from audiomill.models.ctc.emissions import dequantize_logprobs, quantize_logprobs, top_tokens
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.ngram import NgramModel, local_file
from audiomill.models.ctc.spelling import TokenTrie, spelled, words_of_lexicon
from audiomill.storage.fs import Place

LETTERS = CtcVocabulary(("_", "|", "a", "b"), 0, "|")
NO_WORTH = FusionWeights()
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.3
-0.8\t</s>
-0.5\ta\t-0.2
-0.7\tab\t-0.1

\\2-grams:
-0.2\t<s> a
-0.4\ta ab
-0.6\tab </s>

\\end\\
"""


def logprobs(seed: int, frames: int, size: int = 4, scale: float = 2.0) -> NDArray[np.float32]:
    x = np.random.default_rng(seed).normal(size=(frames, size)) * scale
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)), np.float32)


def all_texts(logprobs_FV: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Log-probability of every token sequence: the sum over all alignments, one by one."""
    totals: dict[tuple[int, ...], float] = {}
    for path in product(range(logprobs_FV.shape[1]), repeat=len(logprobs_FV)):
        kept = tuple(t for at, t in enumerate(path) if t != 0 and (at == 0 or path[at - 1] != t))
        own = float(sum(logprobs_FV[frame, token] for frame, token in enumerate(path)))
        totals[kept] = float(np.logaddexp(totals.get(kept, -np.inf), own))
    return totals


def words_of(tokens: Sequence[int]) -> list[str]:
    return "".join(" " if t == 1 else LETTERS.tokens[t] for t in tokens).split()


def searched(rows: list[NDArray[np.float32]], context: Context, beam: int = 2000) -> list[list[ScoredText]]:
    return prefix_beam_search([top_tokens(row, 0, 3) for row in rows], context, beam, beam)


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arpa"
    path.write_text(ARPA)
    return path


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_every_text_has_the_probability_of_all_its_alignments(seed: int, frames: int) -> None:
    given_FV = logprobs(seed, frames)
    expected = all_texts(given_FV)
    (found,) = searched([given_FV], Context(LETTERS, NO_WORTH))
    assert {each.prefix.tokens() for each in found} == set(expected)
    for each in found:
        assert each.acoustic == pytest.approx(expected[each.prefix.tokens()], abs=1e-4)
    assert found[0].prefix.tokens() == max(expected, key=lambda tokens: (expected[tokens], tokens))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_with_a_language_model_the_best_is_the_best_of_all(seed: int) -> None:
    given_FV = logprobs(seed, 5, scale=1.0)
    path = Path("/tmp") / f"audiomill-test-{seed}.arpa"
    path.write_text(ARPA)
    lm, weights = NgramModel(path), FusionWeights(lm=0.7, word=0.4, unknown=-2.0)
    path.unlink()

    def worth(tokens: tuple[int, ...]) -> float:
        words = words_of(tokens)
        unknown = sum(word not in ("a", "ab") for word in words)
        return 0.7 * lm.score(words) + 0.4 * len(words) - 2.0 * unknown

    scores = {tokens: acoustic + worth(tokens) for tokens, acoustic in all_texts(given_FV).items()}
    (found,) = searched([given_FV], Context(LETTERS, weights, lm))
    assert found[0].score == pytest.approx(max(scores.values()), abs=1e-4)
    for each in found:
        assert each.score == pytest.approx(scores[each.prefix.tokens()], abs=1e-4)
        assert each.prefix.lm == pytest.approx(lm.score(words_of(each.prefix.tokens())), abs=1e-4)
        assert each.prefix.num_words == len(words_of(each.prefix.tokens()))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_lexicon_leaves_only_its_words_and_takes_none_of_their_probability(seed: int) -> None:
    given_FV = logprobs(seed, 5)
    trie = TokenTrie([spelled(word, LETTERS, "") for word in ("a", "ab", "bb")], 4)
    expected = {
        tokens: total
        for tokens, total in all_texts(given_FV).items()
        if all(word in ("a", "ab", "bb") for word in words_of(tokens))
    }
    (found,) = searched([given_FV], Context(LETTERS, NO_WORTH, lexicon=trie))
    assert {each.prefix.tokens() for each in found} == set(expected)
    assert all(each.acoustic == pytest.approx(expected[each.prefix.tokens()], abs=1e-4) for each in found)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_hotwords_count_once_for_each_whole_phrase_and_not_for_parts(seed: int) -> None:
    given_FV = logprobs(seed, 5)
    trie = TokenTrie([spelled("ab", LETTERS, ""), spelled("a b", LETTERS, "")], 4)
    (found,) = searched([given_FV], Context(LETTERS, FusionWeights(hotword=3.0), hotwords=trie))
    for each in found:
        words = words_of(each.prefix.tokens())
        is_doubled = (1, 1) in zip(each.prefix.tokens(), each.prefix.tokens()[1:], strict=False)
        if each.prefix.tokens()[:1] == (1,) or is_doubled:
            continue  # a phrase is written with one delimiter between its words
        hits = at = 0
        while at < len(words):
            length = 2 if words[at : at + 2] == ["a", "b"] else 1 if words[at] == "ab" else 0
            hits, at = hits + (length > 0), at + max(1, length)
        assert each.score == pytest.approx(each.acoustic + 3.0 * hits, abs=1e-4)


def test_the_batch_does_not_matter() -> None:
    rows = [logprobs(seed, frames) for seed, frames in enumerate([9, 3, 17, 1, 12, 30, 5, 0, 8])]
    context = Context(LETTERS, NO_WORTH)
    together = searched(rows, context, 6)
    for row, found in zip(rows, together, strict=True):
        (alone,) = searched([row], context, 6)
        assert [(each.prefix.tokens(), each.score) for each in found] == [(e.prefix.tokens(), e.score) for e in alone]


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_tokens_that_are_no_letters_have_times_too(seed: int, frames: int) -> None:
    vocabulary = CtcVocabulary(("_", "|", "<unk>", "a", "1ª", "'"), 0, "|")
    top = top_tokens(logprobs(seed, frames, len(vocabulary.tokens)), 0, 5)
    decoder = BeamDecoder(SearchConfig(beam_size=4), vocabulary, {})
    (found,) = decoder.transcripts([Stretch(0, 0, False, top)], 320, None)
    words = found.words or ()
    assert [word.text for word in words] == found.text.split()
    assert all(0 <= word.start < word.stop <= 320 * frames for word in words)
    assert all(before.start <= after.start for before, after in pairwise(words))


def test_a_small_beam_finds_what_is_clear() -> None:
    labels = [0, 2, 2, 0, 3, 1, 0, 2, 0]
    sharp_FV = np.full((9, 4), -6.0, np.float32)
    sharp_FV[np.arange(9), labels] = -0.01
    (found,) = searched([sharp_FV], Context(LETTERS, NO_WORTH), 2)
    assert words_of(found[0].prefix.tokens()) == ["ab", "a"]


def test_phonemes_are_words_of_their_own(arpa: Path) -> None:
    vocabulary = CtcVocabulary(("_", "|", "a", "ab"), 0, "|", spaced=True)
    lm, given_FV = NgramModel(arpa), logprobs(3, 5)
    given_FV[:, 1] = -30.0
    context = Context(vocabulary, FusionWeights(lm=1.0), lm)
    (found,) = prefix_beam_search([top_tokens(given_FV, 0, 3)], context, 2000, 2000)
    for each in found:
        if 1 not in each.prefix.tokens():
            words = [vocabulary.tokens[token] for token in each.prefix.tokens()]
            assert each.score == pytest.approx(each.acoustic + lm.score(words), abs=1e-4)


def test_kenlm_scores_are_those_of_the_arpa_file_by_hand(arpa: Path) -> None:
    """log10: p(a|<s>) = -0.2, p(ab|a) = -0.4, p(</s>|ab) = -0.6; back-off where a pair is not listed."""
    lm, ten = NgramModel(arpa), math.log(10)
    assert lm.score(["a", "ab"]) == pytest.approx((-0.2 - 0.4 - 0.6) * ten, abs=1e-4)
    assert lm.score(["ab"]) == pytest.approx((-0.3 - 0.7 - 0.6) * ten, abs=1e-4)
    assert lm.score(["a", "what"]) == pytest.approx((-0.2 - 0.2 - 1.5 - 0.8) * ten, abs=1e-4)
    assert "ab" in lm and "what" not in lm
    state = lm.start()
    score, state = lm.next(state, "a")
    assert score == pytest.approx(-0.2 * ten, abs=1e-4)
    assert lm.end(lm.next(state, "ab")[1]) == pytest.approx(-0.6 * ten, abs=1e-4)


def test_what_is_no_language_model_or_lexicon_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.arpa").write_text("nothing")
    with pytest.raises(InputError, match=r"expected a KenLM binary or an ARPA file of bigrams"):
        NgramModel(tmp_path / "x.arpa")
    with pytest.raises(InputError, match="no such file"):
        local_file(Place(str(tmp_path / "none.arpa")), "--lm")
    (tmp_path / "words.txt").write_text("ab\nxyz\n")
    with pytest.raises(InputError, match="'xyz' has 'x'"):
        list(words_of_lexicon(tmp_path / "words.txt", LETTERS))
    (tmp_path / "words.txt").write_text("w\ta b |\n")
    assert list(words_of_lexicon(tmp_path / "words.txt", LETTERS)) == [[2, 3]]


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_eight_bits_keep_a_log_probability_to_a_share_of_itself(seed: int) -> None:
    values = -np.random.default_rng(seed).exponential(4.0, 200).astype(np.float32)
    back = dequantize_logprobs(quantize_logprobs(values))
    assert (np.abs(back - np.maximum(values, -20.0)) <= 0.0005 + 0.04 * np.sqrt(np.abs(values))).all()
    assert dequantize_logprobs(quantize_logprobs(np.zeros(1, np.float32)))[0] == 0.0
