"""The last student of self-training: a Transformer on log-mels, as transformers has it, and what beams add to it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import UsageError
from audiomill.models.base import VectorRequest
from audiomill.models.seq2seq.beam.fusion import Coverage, Fusion, with_ends_ruled
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.scale import daily
from tests.support.tone_language import RATE, spoken, write_corpus
from tests.support.training import trained

CONFIG = {
    "model_type": "speech_to_text", "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "conv_channels": 32, "dropout": 0.0,
    "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
    "max_target_positions": 64,
}  # fmt: skip
LENGTHS = [20_000, 16_000, 900, 48_000, 16_001]
MAX_NEW = 24


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on tones; its checkpoint, and its report."""
    root = tmp_path_factory.mktemp("student")
    (root / "config").mkdir()
    (root / "config" / "config.json").write_text(json.dumps(CONFIG))
    write_corpus(root / "labelled", range(48))
    report = trained(
        write_corpus(root / "dev", range(300, 308)).parent / "labelled", root / "out", model=str(root / "config"), objective="seq2seq",
        vocab_size=14, max_updates=daily(60, 700), batch_seconds=30.0, learning_rate=3e-3, mask_time_prob=0.0,
    )  # fmt: skip
    (root / "report.json").write_text(json.dumps(report))
    return root / "out" / "checkpoint"


def segments(lengths: list[int]) -> list[Segment]:
    clips = [spoken("abc ab ca cb", n, noise=0.1) for n in lengths]
    return [Segment(np.resize(clip, n), 0, 0, (str(n), None), 0, None) for clip, n in zip(clips, lengths, strict=True)]


@cache
def theirs(folder: Path) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer, Speech2TextFeatureExtractor, Speech2TextForConditionalGeneration

    model = Speech2TextForConditionalGeneration.from_pretrained(folder).eval()
    return model, Speech2TextFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def generated(folder: Path, pcm: Any, num_beams: int) -> str:
    model, extractor, tokenizer = theirs(folder)
    features = extractor(pcm.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt").input_features
    with torch.inference_mode():
        ids = model.generate(features, num_beams=num_beams, max_new_tokens=MAX_NEW, do_sample=False)
    return str(tokenizer.batch_decode(ids, skip_special_tokens=True)[0]).strip()


@pytest.mark.parametrize("num_beams", [1, 4])
def test_texts_of_a_batch_are_those_of_generate_alone(student: Path, num_beams: int) -> None:
    wanted = TranscriptConfig(fallback=False, max_new_tokens=MAX_NEW, decoder=SearchConfig(beam_size=num_beams))
    model, batch = loaded(student, transcripts=wanted), segments(LENGTHS)
    texts = model.transcripts(batch, [answer.text for answer in model.forward(batch)])
    assert [each.text for each in texts] == [generated(student, u.pcm_T, num_beams) for u in batch]
    assert len({each.text for each in texts}) >= 3


def test_vectors_of_a_batch_are_those_of_the_encoder_alone(student: Path) -> None:
    model, extractor, _ = theirs(student)
    batch = segments(LENGTHS)
    ours = loaded(student, vectors=(VectorRequest(layer=2, dtype="fp32"),)).forward(batch)
    for segment, answer in zip(batch, ours, strict=True):
        wave = segment.pcm_T.astype(np.float32) / 32768
        features = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            expected = model.model.encoder(features).last_hidden_state[0].numpy()
        found = answer.readout.vectors[0].values_ND
        assert np.linalg.norm(found - expected[: len(found)]) / np.linalg.norm(expected) < 1e-4


def test_a_padded_batch_is_worth_what_its_clips_are_worth_alone(student: Path) -> None:
    """With transformers' own loss of each clip at batch size 1."""
    from audiomill.config.train import TrainConfig
    from audiomill.models.speech_to_text.s2t_learner import load_seq2seq_learner
    from tests.support.training import said

    config = TrainConfig(mask_time_prob=0.0, label_smoothing=0.0)
    learner = load_seq2seq_learner(student, config, said("ab"), torch.device("cpu"))
    clips, texts = [each.pcm_T for each in segments(LENGTHS[:3])], ("ab ca", "c", "bca")
    labels = learner.labels(said(*texts, "zoo", "..."), np.full(5, RATE))
    assert labels[3:] == ["unknown_characters", "empty_text"]
    learner.model.eval()
    ours = learner.loss(clips, labels[:3], np.ones(3, np.float32), 0)
    model, extractor, _ = theirs(student)
    expected = 0.0
    for clip, tokens in zip(clips, labels, strict=False):
        features = extractor(clip.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt").input_features
        ids = torch.tensor([[*tokens, model.config.eos_token_id]])
        with torch.inference_mode():
            expected += float(model(features, labels=ids).loss) * ids.shape[1]
    assert float(ours.total.detach()) == pytest.approx(expected, rel=1e-3)
    assert ours.size == sum(len(each) + 1 for each in labels[:3])


def test_it_learns_and_its_curve_says_so(student: Path) -> None:
    report = json.loads((student.parent.parent / "report.json").read_text())
    parse_reply = [json.loads(line) for line in (student.parent / "metrics.jsonl").open()]
    losses = [row["loss"] for row in parse_reply if "loss" in row]
    assert len(losses) > 1 and losses[-1] < 0.8 * losses[0] and report["objective"] == "seq2seq"


def test_too_few_pieces_for_the_letters_are_told(student: Path, tmp_path: Path) -> None:
    root = student.parent.parent
    with pytest.raises(UsageError, match="--vocab-size 5: the labels have 3 kinds of letters; expected at least 8"):
        trained(root / "labelled", tmp_path / "o", model=str(root / "config"), objective="seq2seq", vocab_size=5)


PIECES = ("<s>", "</s>", "▁see", "▁sea", "s", "▁the")
ARPA = """\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-1.0\t<unk>\t0
0\t<s>\t0
-1.0\t</s>
-0.2\tsea\t0
-2.2\tsee\t0
-0.5\tthe\t0

\\2-grams:
-0.5\tthe the

\\end\\
"""


def fusion(tmp_path: Path, **weights: Any) -> Fusion:
    from audiomill.models.ctc.ngram import NgramModel

    (tmp_path / "lm.arpa").write_text(ARPA)
    config = SearchConfig(**{"beam_size": 4, "lm": "x", "lm_weight": 1.0, "word_insertion_score": 0.5, **weights})
    return Fusion(PIECES, config, NgramModel(tmp_path / "lm.arpa"), None)


def test_a_word_is_worth_its_language_model_s_score_once_it_has_ended(tmp_path: Path) -> None:
    found = fusion(tmp_path)
    see, sea = (found.extended(found.empty, at) for at in (2, 3))
    added = found.added([[see, sea]], 1, torch.device("cpu"))[0]
    log10 = np.log(10.0)
    assert added[0, 5] - added[1, 5] == pytest.approx(-2.0 * log10, abs=1e-6), "▁the ends the word before it"
    assert added[0, 4] == added[1, 4] == 0, "a piece inside a word ends nothing"
    assert float(added[1, 5]) == pytest.approx(-0.2 * log10 + 0.5, abs=1e-6)
    assert float(added[1, 1]) == pytest.approx(-1.2 * log10 + 0.5, abs=1e-6), (
        "the end ends it too, and is a word itself"
    )
    whole = found.whole(found.extended(see, 4))  # sees: unknown
    assert whole.num_words == 1


def test_ends_that_are_too_improbable_are_never_taken_and_coverage_counts_frames_once() -> None:
    logprobs = torch.tensor([[[-1.0, -1.4, -9.0], [-1.0, -1.6, -9.0]]])
    ruled = with_ends_ruled(logprobs, 1)
    assert torch.isinf(ruled[0, :, 1]).tolist() == [False, True] and torch.equal(ruled[0, :, 0], logprobs[0, :, 0])
    coverage, looks = Coverage(1, 2), torch.full((1, 1, 2, 3), -20.0)
    looks[0, 0, 0, 1] = looks[0, 0, 1, 2] = 20.0
    assert coverage.looked(looks).tolist() == [[1.0, 1.0]]
    coverage.reorder(torch.tensor([[1, 1]]))
    assert coverage.looked(looks).tolist() == [[1.0, 0.0]], "frame 2 was covered by the beam that both go on from"


def test_the_scores_of_an_n_best_list_are_what_the_guide_says(student: Path, tmp_path: Path) -> None:
    words = ("a", "b", "c", "ab", "ba", "ca", "cb", "abc", "cab", "bca")
    lines = "".join(f"-1.0\t{word}\t0\n" for word in words)
    (tmp_path / "lm.arpa").write_text(
        f"\\data\\\nngram 1={len(words) + 3}\nngram 2=1\n\n\\1-grams:\n-9\t<unk>\n0\t<s>\t0\n-1.0\t</s>\n{lines}\n\\2-grams:\n-0.5\ta b\n\n\\end\\\n"
    )
    soundfile.write(tmp_path / "a.wav", spoken("ab ca", 1), RATE)
    options = {
        "model": student,
        "segment": "none",
        "beam_size": 4,
        "num_best": 3,
        "fallback": False,
        "max_new_tokens": MAX_NEW,
    }
    run(tmp_path / "a.wav", tmp_path / "plain", **options)
    run(
        tmp_path / "a.wav",
        tmp_path / "lm",
        lm=str(tmp_path / "lm.arpa"),
        lm_weight=0.3,
        word_insertion_score=1.5,
        **options,
    )
    (plain,), (fused,) = (rows(tmp_path / name, "segments") for name in ("plain", "lm"))
    assert len(plain["nbest"]) == len(fused["nbest"]) == 3 and plain["nbest"][0]["text"] == plain["text"]
    for each in fused["nbest"]:
        unknown = sum(word not in words for word in each["text"].split())
        expected = each["acoustic"] + 0.3 * each["lm"] + 1.5 * each["num_words"] + SearchConfig().unk_score * unknown
        assert each["score"] == pytest.approx(expected, abs=1e-3) and each["num_words"] == len(each["text"].split())
    scores = [each["score"] for each in fused["nbest"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.nightly
def test_two_workers_learn_as_one_does(student: Path, tmp_path: Path) -> None:
    root = student.parent.parent
    options = {
        "model": str(root / "config"),
        "objective": "seq2seq",
        "vocab_size": 14,
        "max_updates": 4,
        "mask_time_prob": 0.01,
    }
    trained(root / "labelled", tmp_path / "one", gradient_accumulation_steps=2, **options)
    trained(root / "labelled", tmp_path / "two", workers=2, **options)
    one, two = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[each] - two[each]).abs().max()) for each in one) < 2e-4
