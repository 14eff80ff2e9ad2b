"""Transducers against transformers' `generate` at batch size 1: tokens, frames, words with times; and as runs use them."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import VectorRequest
from tests.support.encoder_checkpoints import save_transducer
from tests.support.jobs_by_hand import check_accounts, loaded, part_files, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, noise

HOP = 1280
FIXED = [2_400, 16_001, 40_123, 100_017]
KINDS = {"tdt": (0, 1, 2, 3, 4), "rnnt": None}


@pytest.fixture(scope="session", params=sorted(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transducer(tmp_path_factory.mktemp("transducers") / request.param, durations=KINDS[request.param])


def segments(lengths: list[int]) -> list[Segment]:
    return [Segment(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


@cache
def both(folder: Path) -> Any:
    requested = tuple(VectorRequest(layer=layer) for layer in range(4))
    return loaded(folder, transcripts=TranscriptConfig(drop_special_tokens=True), vectors=requested)


@cache
def alone(folder: Path, num_samples: int) -> tuple[list[tuple[int, int]], str, tuple[torch.Tensor, ...], float]:
    """Tokens with their frames, the text, the encoder's hidden states, and the smallest margin of a decision, by
    transformers at batch size 1."""
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    wave = noise(num_samples, seed=num_samples).astype(np.float32) / 32768
    inputs = extractor(wave, sampling_rate=RATE, return_tensors="pt")
    margins = [np.inf]

    def margin(_module: Any, _given: Any, logits: torch.Tensor) -> None:
        size = model.config.vocab_size
        for part in (logits.flatten()[:size], logits.flatten()[size:]):
            if len(part):
                first, second = part.topk(2).values.tolist()
                margins.append(first - second)

    model.joint.register_forward_hook(margin)
    with torch.inference_mode():
        found = model.generate(**inputs, max_new_tokens=2_000)
        hidden = model.encoder(**inputs, output_hidden_states=True)
    at = (found.durations.cumsum(-1) - found.durations)[0].tolist()
    tokens, blank = found.sequences[0].tolist(), model.config.blank_token_id
    kept = [(token, frame) for token, frame in list(zip(tokens, at, strict=True))[1:] if token != blank]
    text = AutoTokenizer.from_pretrained(folder).decode(
        [t for t, _ in kept], skip_special_tokens=True, group_tokens=False
    )
    count = int(hidden.attention_mask.sum())
    return kept, " ".join(text.split()), tuple(each[0, :count] for each in hidden.hidden_states), min(margins)


def is_comparable(folder: Path, num_samples: int) -> bool:
    """Whether no near tie decides, and NeMo's limit of labels at one frame is not reached, which transformers does not keep
    for a TDT."""
    labels, _, _, margin = alone(folder, num_samples)
    most = max(Counter(frame for _, frame in labels).values(), default=0)
    return margin > 1e-3 and (folder.name == "rnnt" or most < 10)


def check_batch(folder: Path, lengths: list[int]) -> None:
    model, batch = both(folder), segments(lengths)
    answers = model.forward(batch)
    texts = model.transcripts(batch, [answer.text for answer in answers])
    for segment, answer, text in zip(batch, answers, texts, strict=True):
        expected, written, hidden, _ = alone(folder, len(segment.pcm_T))
        ours = list(zip(answer.text.tokens_N.tolist(), answer.text.frames_N.tolist(), strict=True))
        if is_comparable(folder, len(segment.pcm_T)):
            assert ours == expected and text.text == written
        for vectors, theirs in zip(answer.readout.vectors, hidden, strict=True):
            assert (torch.from_numpy(vectors.values_ND) - theirs).norm() / theirs.norm() < 1e-4


def test_a_batch_writes_what_each_row_writes_alone_in_transformers(folder: Path) -> None:
    check_batch(folder, FIXED)
    assert sum(is_comparable(folder, n) for n in FIXED) >= 2, "few are left out"
    assert len({token for n in FIXED for token, _ in alone(folder, n)[0]}) > 8, (
        "the test's model says more than one thing"
    )


@settings(max_examples=daily(4, 12), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.integers(2_400, 6 * RATE), min_size=1, max_size=5))
def test_random_lengths_and_mixes_give_what_each_row_gives_alone(folder: Path, lengths: list[int]) -> None:
    check_batch(folder, lengths)


def test_words_lie_where_their_tokens_were_written(folder: Path) -> None:
    model, batch = both(folder), segments(FIXED)
    answers = [answer.text for answer in model.forward(batch)]
    for segment, labels, text in zip(batch, answers, model.transcripts(batch, answers), strict=True):
        assert text.text == " ".join(word.text for word in text.words or ())
        starts = [word.start for word in text.words or ()]
        assert starts == sorted(starts) and all(start % HOP == 0 for start in starts)
        assert {start // HOP for start in starts} <= set(labels.frames_N.tolist())
        for word in text.words or ():
            assert word.start < word.stop <= len(segment.pcm_T) + 5 * HOP and 0 < word.probability <= 1


def test_a_model_that_writes_without_end_at_one_frame_goes_on(tmp_path: Path) -> None:
    """Every label lasts no frame: NeMo's limit moves on, transformers would stop with the audio half read."""
    folder = save_transducer(tmp_path / "tdt", durations=(0, 0, 0, 0, 0))
    model, (segment,) = loaded(folder), segments([40_000])
    labels = model.forward([segment])[0].text
    counts = np.bincount(labels.frames_N)
    assert counts.max() <= 10 and labels.frames_N.max() > len(segment.pcm_T) // HOP - 4


def test_context_is_heard_and_what_it_says_is_left_out(folder: Path) -> None:
    pcm, left, right = noise(80_000, seed=1), 12 * HOP, 10 * HOP
    model, whole = both(folder), Segment(pcm, left, right, ("r", None), left, None)
    (answer,) = model.forward([whole])
    (text,) = model.transcripts([whole], [answer.text])
    inside = [f for f in answer.text.frames_N.tolist() if left <= f * HOP < len(pcm) - right]
    assert 0 < len(inside) < len(answer.text.frames_N)
    assert all(0 <= word.start < len(pcm) - left - right for word in text.words or ())


@pytest.mark.parametrize("num_samples", [0, 1, 500])
def test_the_shortest_audio_is_heard(folder: Path, num_samples: int) -> None:
    (answer,) = both(folder).forward([Segment(np.ones(num_samples, np.int16), 0, 0, ("r", None), 0, None)])
    assert np.isfinite(answer.text.logprobs_N).all() and np.isfinite(answer.readout.vectors[0].values_ND).all()


def test_a_run_gives_words_vectors_and_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, seconds in enumerate((1, daily(2, 3), daily(31, 40))):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(noise(RATE * seconds, number)))
    (tmp_path / "in" / "broken.wav").write_bytes(b"no audio")
    for name in ("once", "again"):
        run(tmp_path / "in", tmp_path / name, model=folder, segment="fixed", verify_segments=1)
    check_accounts(tmp_path / "once")
    assert part_files(tmp_path / "once") == part_files(tmp_path / "again")
    written = rows(tmp_path / "once", "segments")
    assert len(written) >= 4 and all(0 <= row["confidence"] <= 1 for row in written)
    assert all(s["start_s"] <= w["start_s"] <= w["stop_s"] <= s["stop_s"] for s in written for w in s["words"])
    with pytest.raises(ModelError, match=r"--beam-size: .* is no CTC model"):
        run(tmp_path / "in", tmp_path / "beam", model=folder, beam_size=4)
    int8 = loaded(folder, "int8-w7a8-smooth")
    batch = segments(FIXED[:3])
    together = [answer.text.tokens_N.tolist() for answer in int8.forward(batch)]
    assert [int8.forward([each])[0].text.tokens_N.tolist() for each in batch] == together
