"""Short segments side by side in one window: every word goes back to the segment that it was said in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.config.text import TranscriptConfig
from audiomill.models.base import Prediction, Utterance
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.seq2seq.hypothesis import DecodedChunk, Hypothesis
from audiomill.models.whisper.pack import PACK_S, WindowPacker
from audiomill.models.whisper.words import TimedToken
from tests.support.jobs_by_hand import check_accounts, loaded, rows, run
from tests.support.synth import RATE, encode


class Words:
    """A tokenizer in which every token is a word."""

    def decode_batch(self, many: list[list[int]]) -> list[str]:
        return ["".join(f" w{i}" for i in ids) for ids in many]


@given(
    st.lists(st.tuples(st.integers(8_000, 100_000), st.integers(0, 3), st.sampled_from(["en", "de"])), max_size=12),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_packs_hold_neighbours_and_give_each_its_own_words(lengths: list[tuple[int, int, str]], seed: int) -> None:
    random, packer = np.random.default_rng(seed), WindowPacker(Words())
    utterances = [
        Utterance(np.full(n, i + 1, np.int16), 0, 0, ("r", None), i, code) for i, (n, _, code) in enumerate(lengths)
    ]
    packs = packer.packed(utterances)
    assert [i for pack in packs for i in pack.members] == list(range(len(lengths)))
    for pack in packs:
        assert len(pack.members) == 1 or len(pack.utterance.pcm_T) <= PACK_S * RATE
        assert len({utterances[i].language for i in pack.members}) == 1
        timed, expected = [], []
        for start, i in zip(pack.starts, pack.members, strict=True):
            length, count, _ = lengths[i]
            assert (pack.utterance.pcm_T[start : start + length] == i + 1).all()
            at = np.sort(random.integers(0, length - 400, count))
            expected.append([100 * i + n for n in range(count)])
            timed += [TimedToken(100 * i + n, int(start + a), int(start + a + 300), 0.5) for n, a in enumerate(at)]
        decoded = DecodedTokens([t.token for t in timed], [-0.7] * len(timed), -0.7 * len(timed), len(timed), 0.1, True)
        heard = Hypothesis((DecodedChunk(0, decoded, tuple(timed)),), "en", None)
        found = packer.unpacked(pack, Prediction(heard), utterances)
        assert [answer.text.tokens for answer in found] == expected
        for answer, i in zip(found, pack.members, strict=True):
            assert all(0 <= t.start <= t.stop <= lengths[i][0] for t in answer.text.chunks[0].timed)


def test_packed_clips_keep_their_texts(tmp_path: Path, whisper: Path, voices: Any) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(voices[number % 2][0]))
    run(tmp_path / "in", tmp_path / "out", model=whisper, pack=True)
    check_accounts(tmp_path / "out")
    for row in rows(tmp_path / "out", "recordings"):
        said, other = ("world", "dog") if int(Path(row["source"]).stem) % 2 == 0 else ("lazy dog", "world")
        assert said in row["text"].lower() and other not in row["text"].lower()
    for segment in rows(tmp_path / "out", "segments"):
        assert [word["word"] for word in segment["words"]] == segment["text"].split()


def test_only_text_is_packed(whisper: Path) -> None:
    assert loaded(whisper).packer is None
    assert loaded(whisper, transcripts=TranscriptConfig(pack=True)).packer is not None
