"""Several languages learnt at once: heads and adapters by language, and Whisper's token of each clip's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from audiomill.config.train import TrainConfig
from audiomill.errors import UsageError
from audiomill.text.normalize import Text
from tests.models.test_checkpoints import save_multilingual
from tests.support.jobs_by_hand import rows, run
from tests.support.tone_language import RATE, save_config, sentence, spoken
from tests.support.training import said, trained

OTHER = str.maketrans("abc", "xyz")
"""The second language hears the same tones, and writes other letters."""


def manifest(folder: Path, numbers: range, languages: tuple[str, ...] = ("aa", "sv-SE")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        text, language = sentence(number), languages[number % len(languages)]
        soundfile.write(folder / f"{number}.wav", spoken(text, number), RATE)
        written = text if language == "aa" else text.translate(OTHER)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": written, "lang": language}))
    (folder / "m.jsonl").write_text("\n".join(lines))
    return folder / "m.jsonl"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two languages (Tongan's code is a method of torch) with random weights, heads sharp enough to write more than one thing."""
    from audiomill.models.wav2vec2.learner import load_ctc

    root = tmp_path_factory.mktemp("tongues")
    config = TrainConfig(from_scratch=True, language_adapters=True, adapter_width=4)
    texts = [Text("abc cab", "to"), Text("xyz zxy", "sv-SE")]
    torch.manual_seed(0)
    learner = load_ctc(save_config(root / "config"), config, texts, torch.device("cpu"))
    with torch.no_grad():
        for name, each in learner.model.named_parameters():
            if ".adapter_layer.of." in name:
                each.normal_(0, 0.5)
            if name.startswith("lm_head.") and name.endswith("weight"):
                each.mul_(60)
    learner.save(root / "checkpoint")
    return root / "checkpoint"


def test_each_language_is_read_by_plain_transformers_as_here(several: Path, tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    clips = [spoken(sentence(number), number) for number in (300, 301)]
    (tmp_path / "in").mkdir()
    for number, clip in enumerate(clips):
        soundfile.write(tmp_path / "in" / f"{number}.wav", clip, RATE)
    prepared = AutoFeatureExtractor.from_pretrained(several)
    letters = {"to": set(" abc"), "sv-SE": set(" xyz")}
    for language in ("to", "sv-SE"):
        run(tmp_path / "in", tmp_path / language, "transcribe", model=several, language=language, segment="fixed")
        ours = {Path(row["source"]).stem: row["text"] for row in rows(tmp_path / language, "recordings")}
        model = Wav2Vec2ForCTC.from_pretrained(several, target_lang=language, ignore_mismatched_sizes=True).eval()
        tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(several, target_lang=language)
        for number, clip in enumerate(clips):
            values = prepared(clip.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt")
            with torch.inference_mode():
                best = model(values["input_values"]).logits.argmax(-1)
            expected = tokenizer.batch_decode(best)[0].replace("<unk>", "")
            assert " ".join(ours[str(number)].replace("<unk>", "").split()) == " ".join(expected.split())
        assert any(set(text) & letters[language] - {" "} for text in ours.values())


@pytest.mark.nightly
def test_two_languages_learn_at_once_and_clips_of_a_third_are_named(tmp_path: Path) -> None:
    report = trained(
        manifest(tmp_path / "train", range(60)),
        tmp_path / "out",
        model=str(save_config(tmp_path / "config")),
        dev=str(manifest(tmp_path / "dev", range(300, 306), ("aa", "sv-SE", "fi"))),
        language_adapters=True,
        adapter_width=4,
        max_updates=500,
        evaluate_every=500,
    )
    assert report["best_dev_wer"] < 0.2, report
    lost = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert {(row["role"], row["reason"]) for row in lost} == {("dev", "unknown_language")}
    assert "got 'fi'" in lost[0]["detail"]


def test_a_mixed_batch_is_worth_the_sum_of_its_clips_and_frozen_weights_stay(several: Path) -> None:
    from audiomill.models.wav2vec2.learner import load_ctc

    config = TrainConfig(language_adapters=True, mask_time_prob=0.0, dropout=0.0, freeze_encoder=True)
    texts = [Text("ab ca", "to"), Text("xy", "sv-SE"), Text("b", "to"), Text("ab", "de"), Text("ab", None)]
    learner = load_ctc(several, config, texts[:3], torch.device("cpu"))
    clips = [spoken(text, at) for at, text in enumerate(("ab ca", "ab", "b", "ab", "ab"))]
    labels = learner.labels(texts, np.array([len(clip) for clip in clips]))
    assert labels[3:] == ["unknown_language", "no_language"]
    learner.set_trainable(0, 1)
    together = learner.loss(clips[:3], labels[:3], np.ones(3, np.float32), 0)  # type: ignore[arg-type]
    alone = [learner.loss([clips[at]], [labels[at]], np.ones(1, np.float32), 0) for at in range(3)]  # type: ignore[list-item]
    assert float(together.total) == pytest.approx(sum(float(each.total) for each in alone), rel=1e-4)
    together.total.backward()
    learning = {name for name, each in learner.model.named_parameters() if each.grad is not None}
    assert learning and all(".adapter_layer.of." in name or name.startswith("lm_head.") for name in learning)


def test_languages_that_cannot_be_kept_apart_are_refused(tmp_path: Path) -> None:
    config = str(save_config(tmp_path / "config"))
    with pytest.raises(UsageError, match="no clip says its language; expected a language column"):
        none = tmp_path / "none"
        none.mkdir()
        soundfile.write(none / "a.wav", spoken("ab", 1), RATE)
        (none / "a.txt").write_text("ab")
        trained(none, tmp_path / "o1", model=config, language_adapters=True)
    with pytest.raises(UsageError, match=r"language is '\.\./aa'; expected a code"):
        trained(manifest(tmp_path / "m", range(2), ("../aa",)), tmp_path / "o2", model=config, language_adapters=True)
    assert not (tmp_path / "o2").exists() or not any((tmp_path / "o2").rglob("*.safetensors"))


def test_multilingual_whisper_is_told_each_clip_s_own_language(tmp_path: Path) -> None:
    from audiomill.models.whisper.learner import WhisperLabel, load_whisper_learner

    folder = save_multilingual(tmp_path / "whisper")
    learner = load_whisper_learner(folder, TrainConfig(), [], torch.device("cpu"))
    known = learner._tokens.languages
    texts = [Text("hello", "English"), Text("hej", "de-DE"), Text("hi", "klingon"), Text("hi", None), Text("...", "en")]
    labels = learner.labels(texts, np.full(5, RATE))
    assert labels[2:] == ["unknown_language", "no_language", "empty_text"]
    chosen = [each for each in labels if isinstance(each, WhisperLabel)]
    inputs, _ = learner._pairs(chosen, np.array([True, False]))
    assert inputs[:, 1].tolist() == [known["en"], known["de"]]
    with pytest.raises(UsageError, match=r"--language is missing: multilingual Whisper.*expected a language column"):
        learner.labels(said("hello"), np.full(1, RATE))
