"""Encoder-decoders beside Whisper against transformers' `generate` at batch size 1; and as runs use them."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoProcessor

from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import INT8_WEIGHT7
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import VectorRequest
from audiomill.models.checkpoint import check_options, find_checkpoint
from audiomill.models.locate import HUB_PATTERNS
from audiomill.models.preprocessing_files import file_hashes
from audiomill.models.seq2seq.generation import MAX_ROWS
from audiomill.models.seq2seq.hypothesis import DecodingOptions
from tests.support.encoder_checkpoints import save_canary, save_moonshine, save_parakeet
from tests.support.jobs_by_hand import check_accounts, loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, noise

FIXED = [16_000, 40_123, 100_017, 700, 3_000]
MAX_NEW = 40
SAVERS = {"canary": save_canary, "moonshine": save_moonshine}
LANGUAGE = {"canary": "de", "moonshine": None}
MIN_SAMPLES = {"canary": 0, "moonshine": 895}


@pytest.fixture(scope="session", params=sorted(SAVERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVERS[request.param](tmp_path_factory.mktemp("encoder-decoders") / request.param)


def segments(lengths: list[int]) -> list[Segment]:
    return [Segment(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


def wanted(folder: Path, **options: Any) -> TranscriptConfig:
    return TranscriptConfig(language=LANGUAGE[folder.name], fallback=False, max_new_tokens=MAX_NEW, **options)


@cache
def both(folder: Path) -> Any:
    return loaded(folder, transcripts=wanted(folder), vectors=tuple(VectorRequest(layer=layer) for layer in range(4)))


@cache
def theirs(folder: Path) -> tuple[Any, Any, Any]:
    processor = AutoProcessor.from_pretrained(folder) if folder.name == "canary" else None
    return (
        AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval(),
        AutoFeatureExtractor.from_pretrained(folder),
        processor,
    )


def given_to(folder: Path, num_samples: int, **request: Any) -> dict[str, Any]:
    _, extractor, processor = theirs(folder)
    wave = noise(num_samples, seed=num_samples).astype(np.float32) / 32768
    wave = np.pad(wave, (0, max(0, MIN_SAMPLES[folder.name] - len(wave))))
    inputs = dict(extractor(wave, sampling_rate=RATE, return_tensors="pt"))
    if processor is not None:
        asked = {"source_language": "de", **request}
        inputs["decoder_input_ids"] = processor.apply_transcription_request(wave, **asked)["decoder_input_ids"]
    return inputs


def written_by_generate(folder: Path, num_samples: int, request: Any = None, **options: Any) -> tuple[list[int], float]:
    """Tokens without prompt and end, and the smallest margin of a choice."""
    model, _, _ = theirs(folder)
    inputs = given_to(folder, num_samples, **(request or {}))
    found = model.generate(
        **inputs, max_new_tokens=MAX_NEW, do_sample=False, output_scores=True, return_dict_in_generate=True, **options
    )
    prompt = inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 1
    margin = min(float(scores[0].topk(2).values.diff().abs()) for scores in found.scores)
    return [token for token in found.sequences[0].tolist()[prompt:] if token != model.config.eos_token_id], margin


@cache
def alone(folder: Path, num_samples: int) -> tuple[list[int], float, tuple[torch.Tensor, ...]]:
    tokens, margin = written_by_generate(folder, num_samples)
    inputs = given_to(folder, num_samples)
    inputs.pop("decoder_input_ids", None)
    with torch.inference_mode():
        hidden = theirs(folder)[0].model.encoder(**inputs, output_hidden_states=True).hidden_states
    return tokens, margin, tuple(each[0] for each in hidden)


def check_batch(folder: Path, lengths: list[int]) -> None:
    batch = segments(lengths)
    for segment, answer in zip(batch, both(folder).forward(batch), strict=True):
        tokens, margin, hidden = alone(folder, len(segment.pcm_T))
        assert margin < 1e-3 or answer.text.tokens == tokens
        for vectors, each in zip(answer.readout.vectors, hidden, strict=True):
            ours = torch.from_numpy(vectors.values_ND)
            assert (ours - each[: len(ours)]).norm() / each.norm() < 1e-4


def test_a_batch_writes_what_generate_writes_for_each_row_alone(folder: Path) -> None:
    check_batch(folder, FIXED)
    found = [alone(folder, n) for n in FIXED]
    assert sum(margin > 1e-3 for _, margin, _ in found) >= 4, "few are left out"
    said = {tuple(tokens) for tokens, _, _ in found}
    assert len(said) >= 3 and len({token for tokens in said for token in tokens}) > 6, "it says more than one thing"


@settings(max_examples=daily(3, 12), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from([900, 5_000, 5_001, 16_000, 20_480, 31_999, 64_000]), min_size=1, max_size=6))
def test_random_lengths_and_mixes_give_what_each_row_gives_alone(folder: Path, lengths: list[int]) -> None:
    check_batch(folder, lengths)


def test_rows_wait_for_a_slot_and_write_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_ROWS, "cpu", 2)
    check_batch(folder, [16_000, 900, 16_000, 40_123, 900])


def test_beam_search_is_that_of_generate(folder: Path) -> None:
    model = both(folder)
    found = [model.decode([each], DecodingOptions(num_beams=3))[0].tokens for each in segments(FIXED[:2])]
    assert found == [written_by_generate(folder, n, num_beams=3, length_penalty=1.0)[0] for n in FIXED[:2]]


def test_vectors_alone_are_those_beside_text_and_know_their_core(folder: Path) -> None:
    pcm = noise(80_000, seed=1)
    hop = {"canary": 1280, "moonshine": 384}[folder.name]
    only = loaded(folder, vectors=(VectorRequest(layer=2),))
    whole, inner = only.forward(
        [Segment(pcm, 0, 0, ("r", None), 0, None), Segment(pcm, 20 * hop, 20 * hop, ("r", None), 0, None)]
    )
    (of_all,), (of_core,) = whole.readout.vectors, inner.readout.vectors
    assert np.allclose(of_all.values_ND[20 : 20 + len(of_core.values_ND)], of_core.values_ND, atol=1e-5)
    assert 0 < len(of_core.values_ND) < len(of_all.values_ND) - 30


def test_canary_is_told_language_task_and_punctuation(tmp_path: Path) -> None:
    folder = save_canary(tmp_path / "canary")
    ways = [("fr", {}, {"target_language": "fr"}), ("fr", {"task": "translate"}, {"target_language": "en"})]
    ways.append(("en", {"punctuation": False}, {"punctuation": False}))
    for language, options, request in ways:
        text = TranscriptConfig(language=language, fallback=False, max_new_tokens=MAX_NEW, **options)
        (answer,) = loaded(folder, transcripts=text).forward(segments([40_123]))
        tokens, _ = written_by_generate(folder, 40_123, {"source_language": language, **request})
        assert answer.text.tokens == tokens
    (german,) = loaded(
        folder, transcripts=TranscriptConfig(language="en", max_new_tokens=MAX_NEW, fallback=False)
    ).forward([segments([40_123])[0]._replace(language="de")])
    assert german.text.tokens == written_by_generate(folder, 40_123)[0] and german.text.language == "de"


@pytest.fixture
def corpus(tmp_path: Path, voices: Any) -> Path:
    """Speech, which the gates need: noise is emptied."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.wav").write_bytes(encode(np.concatenate([voices[0][0], voices[1][0]])[number * 9_000 :]))
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def test_a_run_passes_its_gates_and_writes_the_same_in_other_parts(folder: Path, tmp_path: Path, corpus: Path) -> None:
    options: dict[str, Any] = {
        "model": folder,
        "language": LANGUAGE[folder.name],
        "segment": "fixed",
        "verify_segments": 2,
    }
    options |= {
        "min_avg_logprob": -0.001,
        "max_new_tokens": MAX_NEW,
        "max_segment_seconds": 2.0,
        "chunk_overlap_seconds": 0.25,
        "precision": "fp32",
    }
    summary = run(corpus, tmp_path / "one", **options)
    run(corpus, tmp_path / "two", part_seconds=3.0, **options)
    check_accounts(tmp_path / "one")
    assert summary["num_rejections"] == 1
    one, two = rows(tmp_path / "one", "segments"), rows(tmp_path / "two", "segments")
    key = {row["id"]: (row["text"], row["failed_checks"], row["fallback_level"]) for row in one}
    assert key == {row["id"]: (row["text"], row["failed_checks"], row["fallback_level"]) for row in two}
    assert any(row["text"] for row in one) and all(row["words"] is None for row in one)
    assert any(row["failed_checks"] for row in one), "random weights do not pass: it is said"


def test_in_int8_a_row_is_written_the_same_whatever_is_beside_it(folder: Path) -> None:
    model = loaded(folder, precision=INT8_WEIGHT7, transcripts=wanted(folder))
    batch = segments([16_000, 40_123, 700])
    for together, each in zip(model.forward(batch), batch, strict=True):
        (single,) = model.forward([each])
        assert together.text.tokens == single.text.tokens
        assert np.allclose(together.text.probabilities, single.text.probabilities, atol=1e-5)


def test_a_ctc_model_beside_it_tells_when_its_words_were_said(tmp_path: Path, corpus: Path, audiomill: Any) -> None:
    moonshine, ctc = save_moonshine(tmp_path / "moonshine"), save_parakeet(tmp_path / "parakeet")
    (tmp_path / "job.yaml").write_text(
        f"inputs: {corpus}\noutput: out\nengine: local\nsegment: fixed\nmodels:\n"
        f"  - {{model: {moonshine}, transcripts: {{max_new_tokens: 12, fallback: false}}}}\n  - {{model: {ctc}, align: true}}\n"
    )
    assert audiomill("run", "job.yaml").returncode == 0
    found = rows(tmp_path / "out", "segments")
    timed = [row for row in found if row["words"]]
    assert timed
    for row in timed:
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        assert all(row["start_s"] <= word["start_s"] <= word["stop_s"] <= row["stop_s"] for word in row["words"])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("moonshine", {"prompt": "x"}, "--prompt: .* only Whisper does"),
        ("moonshine", {"task": "translate"}, "does not translate"),
        ("moonshine", {"languages": "en,de"}, "--languages: .* detects no language"),
        ("canary", {}, "add --language, one of bg, cs"),
        ("canary", {"language": "ca"}, "--language ca: .* knows bg, cs"),
        ("moonshine", {"punctuation": False}, "--no-punctuation: .* only Canary has a choice"),
    ],
)
def test_what_a_model_cannot_is_told_before_anything_is_started(
    tmp_path: Path, name: str, options: Any, told: str
) -> None:
    checkpoint = find_checkpoint(ModelConfig(model=str(SAVERS[name](tmp_path / name))), {})
    with pytest.raises(ModelError, match=told):
        check_options(checkpoint, name, TranscriptConfig(**options))


@pytest.mark.parametrize(
    ("name", "gone", "told"),
    [
        ("canary", "chat_template.jinja", "nothing says how its prompt is written"),
        ("canary", "processor_config.json", "expected"),
        ("moonshine", "preprocessor_config.json", "nothing says how audio becomes features"),
        ("moonshine", "tokenizer.json", "no tokenizer"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, name: str, gone: str, told: str) -> None:
    folder = SAVERS[name](tmp_path / name)
    (folder / gone).unlink()
    with pytest.raises(ModelError, match=told):
        loaded(folder, transcripts=TranscriptConfig(language=LANGUAGE[name]))


def test_a_nemo_archive_is_told_from_weights(tmp_path: Path) -> None:
    (tmp_path / "canary-1b-v2.nemo").write_bytes(b"")
    for name in (tmp_path, tmp_path / "canary-1b-v2.nemo"):
        with pytest.raises(ModelError, match=r"a NeMo archive, which is not read here; expected .* for transformers"):
            find_checkpoint(ModelConfig(model=str(name)), {})


def test_every_file_of_a_checkpoint_is_fetched_from_the_hub(folder: Path) -> None:
    """A prompt's template was left behind."""
    assert [path.name for path in folder.iterdir() if not any(fnmatch(path.name, each) for each in HUB_PATTERNS)] == []


def test_another_prompt_template_is_another_run(tmp_path: Path) -> None:
    """It changes what is written, as weights and tokenizer do."""
    folder = save_canary(tmp_path / "canary")
    before = dict(file_hashes(folder))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|noitn|>", "<|itn|>"))
    assert file_hashes(folder) != before
