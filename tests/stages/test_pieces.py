"""Vocabularies whose tokens are pieces of words: text, words, spellings, beam search against trying everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import SearchConfig
from audiomill.errors import InputError
from audiomill.models.ctc.align import WILDCARD, _tokens
from audiomill.models.ctc.beam_search import BeamDecoder, Stretch
from audiomill.models.ctc.context import Context, FusionWeights
from audiomill.models.ctc.emissions import top_tokens
from audiomill.models.ctc.greedy_decoding import CtcVocabulary, FrameLabels, transcripts
from audiomill.models.ctc.ngram import NgramModel
from audiomill.models.ctc.spelling import TokenTrie, pieces_of, spelled
from audiomill.models.ctc.word_pieces import BYTE_LEVEL, PIECE, join_pieces, mark_of, spelling
from tests.models.test_beam import ARPA, all_texts, logprobs, searched

PIECES = CtcVocabulary(("_", "▁a", "b", "▁ab"), 0, "|", mark=PIECE)
HOP = 320


def words_of(tokens: Sequence[int]) -> list[str]:
    return "".join(PIECES.tokens[token] for token in tokens).replace("▁", " ").split()


def read(vocabulary: CtcVocabulary, tokens: Sequence[str]) -> list[tuple[str, int, int]]:
    """Words with their frames, of a path with a frame a token."""
    ids = np.array([vocabulary.tokens.index(each) for each in tokens], np.int32)
    whole = Segment(np.zeros(len(ids) * HOP, np.int16), 0, 0, ("r", None), 0, None)
    (found,) = transcripts([whole], [FrameLabels(ids, np.full(len(ids), -0.1, np.float32))], vocabulary, HOP, None)
    assert found.text == " ".join(word.text for word in found.words or ())
    return [(word.text, word.start // HOP, word.stop // HOP) for word in found.words or ()]


def test_a_piece_with_the_mark_begins_a_word_and_one_without_goes_on() -> None:
    vocabulary = CtcVocabulary(("_", "▁new", "▁", "york", ",", "er"), 0, "|", mark=PIECE)
    assert read(vocabulary, ["▁new", "er", "_", "▁", "york", ","]) == [("newer", 0, 2), ("york,", 4, 6)]
    assert read(vocabulary, ["york", "york", "_", "york"]) == [("yorkyork", 0, 4)]
    assert read(vocabulary, ["▁", "_", "▁", "▁new"]) == [("new", 3, 4)]
    assert read(vocabulary, ["_", "▁"]) == []


def test_letters_that_are_spelled_in_bytes_are_whole_again() -> None:
    vocabulary = CtcVocabulary(("_", "▁gr", "<0xC3>", "<0xBC>", "n"), 0, "|", mark=PIECE)
    assert read(vocabulary, ["▁gr", "<0xC3>", "<0xBC>", "n"]) == [("grün", 0, 4)]
    levels = CtcVocabulary(("_", "Ġgr", "Ã", "¼", "n"), 0, "|", mark=BYTE_LEVEL)
    assert read(levels, ["Ġgr", "Ã", "¼", "n", "Ġgr"]) == [("grün", 0, 4), ("gr", 4, 5)]


@given(st.lists(st.text("aé漢😀ß'-", min_size=1), min_size=1, max_size=4), st.sampled_from([PIECE, BYTE_LEVEL]))
def test_what_is_spelled_reads_as_it_was(words: list[str], mark: str) -> None:
    assert join_pieces(spelling(words, mark), mark) == " ".join(words)


def test_the_mark_is_found_where_there_is_one() -> None:
    assert mark_of(["<pad>", "▁a", "b"]) == PIECE and mark_of(["a", "Ġthe"]) == BYTE_LEVEL
    assert mark_of(["|", "a", "", "漢"]) == ""


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_with_a_language_model_the_best_is_the_best_of_all(seed: int) -> None:
    given_FV = logprobs(seed, 5, scale=1.0)
    path = Path("/tmp") / f"audiomill-test-pieces-{seed}.arpa"
    path.write_text(ARPA)
    lm, weights = NgramModel(path), FusionWeights(lm=0.7, word=0.4, unknown=-2.0)
    path.unlink()

    def worth(tokens: tuple[int, ...]) -> float:
        words = words_of(tokens)
        return 0.7 * lm.score(words) + 0.4 * len(words) - 2.0 * sum(word not in ("a", "ab") for word in words)

    scores = {tokens: acoustic + worth(tokens) for tokens, acoustic in all_texts(given_FV).items()}
    (found,) = searched([given_FV], Context(PIECES, weights, lm))
    assert found[0].score == pytest.approx(max(scores.values()), abs=1e-4)
    for each in found:
        assert each.score == pytest.approx(scores[each.prefix.tokens()], abs=1e-4)
        assert each.prefix.num_words == len(words_of(each.prefix.tokens()))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_lexicon_leaves_its_words_in_whatever_pieces(seed: int) -> None:
    given_FV = logprobs(seed, 5)
    allowed = ("a", "ab", "abb")
    trie = TokenTrie([spelled(word, PIECES, "") for word in allowed], 4, pieces_of(PIECES))
    expected = {
        tokens: total
        for tokens, total in all_texts(given_FV).items()
        if all(word in allowed for word in words_of(tokens)) and tokens[:1] != (2,)
    }
    (found,) = searched([given_FV], Context(PIECES, FusionWeights(), lexicon=trie))
    assert {each.prefix.tokens() for each in found} == set(expected)
    assert {tokens for tokens in expected if words_of(tokens) == ["ab"]} == {(1, 2), (3,)}
    assert all(each.acoustic == pytest.approx(expected[each.prefix.tokens()], abs=1e-4) for each in found)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_hotwords_count_once_for_each_whole_phrase_in_whatever_pieces(seed: int) -> None:
    given_FV = logprobs(seed, 5)
    trie = TokenTrie([spelled("ab", PIECES, ""), spelled("a ab", PIECES, "")], 4, pieces_of(PIECES))
    (found,) = searched([given_FV], Context(PIECES, FusionWeights(hotword=3.0), hotwords=trie))
    for each in found:
        words = words_of(each.prefix.tokens())
        if each.prefix.tokens()[:1] == (2,):
            continue  # a word that has no beginning
        hits = at = 0
        while at < len(words):
            length = 2 if words[at : at + 2] == ["a", "ab"] else 1 if words[at] == "ab" else 0
            hits, at = hits + (length > 0), at + max(1, length)
        assert each.score == pytest.approx(each.acoustic + 3.0 * hits, abs=1e-4), words


def test_a_hotword_wins_over_a_word_that_sounds_a_little_better() -> None:
    vocabulary = CtcVocabulary(("_", "▁kuber", "netes", "▁cuban", "▁eats"), 0, "|", mark=PIECE)
    path = np.log(np.full((4, 5), 0.01, np.float32))
    path[0, [1, 3]], path[1, 0], path[2, [2, 4]], path[3, 0] = np.log([0.4, 0.5]), -0.05, np.log([0.4, 0.5]), -0.05
    top = top_tokens(path, 0, 4)
    texts = {}
    for hotwords in (None, "Kubernetes"):
        decoder = BeamDecoder(SearchConfig(beam_size=8, hotwords=hotwords), vocabulary, {})
        (texts[hotwords],) = decoder.transcripts([Stretch(0, 0, False, top)], HOP, None)
    assert texts[None].text == "cuban eats" and texts["Kubernetes"].text == "kubernetes"
    assert [(w.text, w.start, w.stop) for w in texts["Kubernetes"].words or ()] == [("kubernetes", 0, 3 * HOP)]
    assert texts["Kubernetes"].avg_logprob == pytest.approx(math.log(0.4), abs=0.1)


def test_hotwords_are_written_in_the_case_that_the_pieces_have() -> None:
    lower = CtcVocabulary(("_", "▁a", "b"), 0, "|", mark=PIECE)
    assert spelled("AB a", lower, "--hotwords") == "▁ab▁a"
    with pytest.raises(InputError, match="--hotwords: 'Abc' has 'c', which the model's vocabulary lacks"):
        spelled("Abc", lower, "--hotwords")


def test_words_of_another_model_are_cut_into_the_fewest_pieces() -> None:
    vocabulary = CtcVocabulary(("_", "▁", "▁h", "el", "lo", "l", "o", "▁hello"), 0, "|", mark=PIECE)
    names = [vocabulary.tokens.index(each) for each in ("▁hello", "▁h", "el", "o")]
    assert _tokens(["Hello,", "helo", "5"], vocabulary) == ([*names, WILDCARD], [0, 1, 1, 1, 2])
