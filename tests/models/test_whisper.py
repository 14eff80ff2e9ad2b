"""Whisper against Hugging Face's own generate, alone and in batches."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.frames.mel import slaney_filters
from audiomill.models.whisper.model import WhisperModel
from audiomill.models.whisper.parts import transformers_parts
from audiomill.text.wer import score_pair
from tests.support.jobs_by_hand import loaded
from tests.support.scale import daily


def segment(pcm: Any, language: str | None = None) -> Segment:
    return Segment(np.asarray(pcm, np.int16), 0, 0, ("r", None), 0, language)


@cache
def generating(folder: Path) -> Any:
    """transformers' own model."""
    return transformers_parts(folder)[0]


def hf_tokens(transcriber: WhisperModel, pcm: Any, timestamps: bool, **options: Any) -> list[int]:
    """What `generate` gives for one segment alone, prompt and end stripped."""
    assert transcriber._folder is not None
    model, tokens = generating(transcriber._folder), transcriber._tokens
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    inputs = extractor(
        pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
    )
    generation = model.generation_config
    generation.suppress_tokens, generation.begin_suppress_tokens = list(tokens.suppress), list(tokens.begin_suppress)
    generation.no_timestamps_token_id, generation.max_initial_timestamp_index = tokens.no_timestamps, 50
    generation.is_multilingual, generation.eos_token_id, generation.pad_token_id = False, tokens.end, tokens.end
    generation.decoder_start_token_id, generation.forced_decoder_ids = tokens.start, None
    generation.prev_sot_token_id = tokens.no_timestamps - 2
    options = {"max_new_tokens": 224, "num_beams": 1, **options}
    out = model.generate(**inputs, return_timestamps=timestamps, do_sample=False, **options)
    ids = (out["sequences"] if isinstance(out, dict) else out)[0].tolist()
    return [i for i in ids if i not in (tokens.start, tokens.no_timestamps, tokens.end)]


@pytest.fixture(scope="module")
def clips(voices: Any) -> list[Any]:
    """Segments of many lengths: words, sentences, pairs, with silence, up to the whole window."""
    (hello, _), (fox, _) = voices
    pause = np.zeros(8000, np.int16)
    pair = np.concatenate([hello, pause, fox])
    long = np.concatenate([fox, pause, hello, pause] * 6)[: 16_000 * daily(8, 30)]
    return [hello, fox, pair, fox[:20_000], np.concatenate([pause, hello, pause]), long, long[: 16_000 * 17]]


@pytest.mark.parametrize("timestamps", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_tokens_equal_generate_alone_and_in_any_batch(whisper: Any, clips: list[Any], timestamps: bool) -> None:
    transcriber = loaded(whisper, transcripts=TranscriptConfig(timestamps=timestamps))
    clips = (
        daily([clips[0], clips[2], clips[5]], clips) if timestamps else clips[: daily(2, 5)]
    )  # long ones take longest
    expected = [hf_tokens(transcriber, pcm, timestamps) for pcm in clips]
    alone = [transcriber.decode([segment(pcm)])[0].tokens for pcm in clips]
    assert alone == expected
    order = np.random.default_rng(1).permutation(len(clips))
    mixed = transcriber.decode([segment(clips[i]) for i in order])
    assert [row.tokens for row in mixed] == [expected[i] for i in order]


@pytest.mark.parametrize("num_mels", [80, 128])
def test_filters_are_those_of_transformers(num_mels: int) -> None:
    theirs = mel_filter_bank(201, num_mels, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    assert np.abs(slaney_filters(num_mels) - theirs).max() < 1e-7 * theirs.max()


def test_loading_whisper_imports_no_transformers(whisper: Path) -> None:
    """It takes a second or two of a run's start."""
    code = (
        "import sys; from tests.support.jobs_by_hand import loaded;"
        f"loaded({str(whisper)!r}); print('transformers' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_log_mel_equals_the_feature_extractor(tiny_en: Any, clips: list[Any]) -> None:
    from audiomill.models.base import stack_rows

    extractor = WhisperFeatureExtractor(feature_size=80)
    pcm_BT = torch.from_numpy(stack_rows([segment(c) for c in clips], 30 * 16_000))
    ours = tiny_en._weights.mel(pcm_BT.float() / 32768)
    for row, pcm in zip(ours, clips, strict=True):
        theirs = extractor(pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt").input_features[0]
        assert (row - theirs).abs().max() < 1e-4


def test_real_speech_is_read_without_error(tiny_en: Any, voices: Any) -> None:
    segments = [segment(pcm) for pcm, _ in voices]
    transcripts = tiny_en.transcripts(segments, tiny_en.decode(segments))
    for transcript, (_, text) in zip(transcripts, voices, strict=True):
        assert score_pair(text, transcript.text, "en")[0].rate == 0
        assert -1 < transcript.avg_logprob < 0 and 0 <= transcript.no_speech_prob < 0.5


def test_phrases_lie_in_order_inside_the_segment(tiny_en: Any, clips: list[Any]) -> None:
    segments = [segment(pcm) for pcm in clips[:6]]
    for clip, transcript in zip(clips[:6], tiny_en.transcripts(segments, tiny_en.decode(segments)), strict=True):
        assert transcript.phrases
        edges = [edge for phrase in transcript.phrases for edge in (phrase.start, phrase.stop)]
        assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= len(clip)
        joined = " ".join(phrase.text for phrase in transcript.phrases)
        assert joined.split() == transcript.text.split()


def test_a_prompt_and_suppressed_numerals_change_what_is_written(whisper: Any) -> None:
    import soundfile
    import soxr

    from audiomill_jobs.install.demo import english_clips

    waveform, rate = soundfile.read(english_clips()[0][0].with_name("counting.wav"), dtype="float32")
    counting = segment(np.rint(soxr.resample(waveform, rate, 16_000) * 32767))
    texts = {}
    for name, options in (("plain", {}), ("words", {"suppress_numerals": True}), ("told", {"prompt": "one two three"})):
        model = loaded(whisper, transcripts=TranscriptConfig(**options))
        texts[name] = model.transcripts([counting], model.decode([counting]))[0].text
    assert any(c.isdigit() for c in texts["plain"]) and not any(c.isdigit() for c in texts["words"])
    assert "two" in texts["words"].lower() and texts["told"] != texts["plain"]


def test_a_prompted_decode_equals_generate(whisper: Any, clips: list[Any]) -> None:
    model = loaded(whisper, transcripts=TranscriptConfig(prompt="Brown foxes, lazy dogs.", timestamps=False))
    ids = torch.tensor(model._asked.before)
    clips = clips[: daily(1, 3)]
    for clip, heard in zip(clips, model.decode([segment(c) for c in clips]), strict=True):
        theirs = hf_tokens(model, clip, False, prompt_ids=ids, max_new_tokens=100)
        assert heard.tokens == [token for token in theirs[-len(heard.tokens) :] if token < model._tokens.end]
