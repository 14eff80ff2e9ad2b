"""Beam search in a run, kept posteriors decoded again, tuned weights, self_consistency under perturbation."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from audiomill.audio.cutting.segment import Segment
from audiomill.config.fields import build
from audiomill.config.output_jobs import RedecodeConfig, RedecodeOutputConfig, TunedConfig, TuneJobConfig
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import ConfigMismatchError, InputError, ModelError, UsageError
from audiomill.models.ctc.rescore import Rescorer
from audiomill.runs.posteriors.redecode import redecode_output
from audiomill.runs.posteriors.tune import tune
from audiomill.text.wer import NO_ERRORS, score_pair
from tests.support.jobs_by_hand import check_accounts, loaded, part_files, rows, run
from tests.support.synth import CTC_TOKENS, RATE
from tests.support.tone_language import WORDS, spoken, write_corpus

NOISE = 0.25


@pytest.fixture(scope="module")
def reader(tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads the language of tones, clips in noise that it reads badly, a language model and a lexicon."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("labelled", "model"):
        (root / name).symlink_to(tone_model / name)
    write_corpus(root / "clips", range(500, 560), noise=NOISE)
    (root / "words.txt").write_text("\n".join(WORDS) + "\n")
    share = f"{math.log10(0.5 / len(WORDS)):.4f}"
    unigrams = "".join(f"{share}\t{word}\t0\n" for word in WORDS)
    (root / "words.arpa").write_text(
        f"\\data\\\nngram 1={len(WORDS) + 3}\nngram 2=1\n\n\\1-grams:\n-3\t<unk>\n-99\t<s>\t0\n-0.3\t</s>\n{unigrams}\n"
        f"\\2-grams:\n{share}\ta ab\n\n\\end\\\n"
    )
    return root


@pytest.fixture(scope="module")
def kept(reader: Path) -> Path:
    """Greedy texts with posteriors."""
    run(reader / "clips", reader / "kept", model=reader / "model" / "checkpoint", segment="none", save_posteriors=5)
    return reader / "kept"


def decoded(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    config = RedecodeConfig(
        inputs=(str(source),),
        decoder=build(SearchConfig, {"beam_size": 16, **options}),
        output=RedecodeOutputConfig(output=str(output), quiet=True),
    )
    return redecode_output(config, Console(quiet=True))


def wer(output: Path) -> float:
    pairs = [(row["reference"], row["text"]) for row in rows(output, "recordings")]
    return sum((score_pair(*pair, None)[0] for pair in pairs), NO_ERRORS).rate


def test_decoding_again_is_decoding_at_once_within_a_tenth_of_a_point(reader: Path, kept: Path, tmp_path: Path) -> None:
    options = {"lm": str(reader / "words.arpa"), "num_best": 3}
    decoded(kept, tmp_path / "again", **options)
    whole = {"model": reader / "model" / "checkpoint", "segment": "none", "beam_size": 16, **options}
    run(reader / "clips", tmp_path / "at-once", **whole)
    assert abs(wer(tmp_path / "again") - wer(tmp_path / "at-once")) <= 0.001
    ours, theirs = rows(tmp_path / "again", "segments"), rows(tmp_path / "at-once", "segments")
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one["text"] == other["text"]:
            assert one["nbest"][0]["acoustic"] == pytest.approx(other["nbest"][0]["acoustic"], abs=0.3)
            assert [w["word"] for w in one["words"]] == one["text"].split()
    check_accounts(tmp_path / "again")
    assert (tmp_path / "again" / "_SUCCESS").exists()


def test_a_lexicon_and_a_language_model_mend_what_the_sound_left_open(reader: Path, kept: Path, tmp_path: Path) -> None:
    greedy = wer(kept)
    decoded(kept, tmp_path / "lexicon", lexicon=str(reader / "words.txt"))
    decoded(kept, tmp_path / "lm", lm=str(reader / "words.arpa"), lm_weight=0.5)
    assert greedy > 0.05 and wer(tmp_path / "lexicon") <= greedy and wer(tmp_path / "lm") <= greedy
    assert {word for row in rows(tmp_path / "lexicon", "recordings") for word in row["text"].split()} <= set(WORDS)
    for row in rows(tmp_path / "lm", "segments"):
        best = row["nbest"][0]
        assert best["text"] == row["text"] and best["num_words"] == len(row["text"].split())
        unknown = sum(word not in WORDS for word in row["text"].split())
        assert best["score"] == pytest.approx(
            best["acoustic"] + 0.5 * best["lm"] + best["num_words"] - 10 * unknown, abs=1e-3
        )


def test_a_restart_and_other_settings(reader: Path, kept: Path, tmp_path: Path) -> None:
    decoded(kept, tmp_path / "out")
    before = part_files(tmp_path / "out")
    (tmp_path / "out" / "ledger" / "part-000000.json").unlink()
    (tmp_path / "out" / "segments" / "part-000000.parquet").unlink()
    decoded(kept, tmp_path / "out")
    assert part_files(tmp_path / "out") == before
    with pytest.raises(ConfigMismatchError, match="--lm was None"):
        decoded(kept, tmp_path / "out", lm=str(reader / "words.arpa"))
    with pytest.raises(UsageError, match="another folder"):
        decoded(kept, kept)
    run(reader / "labelled", tmp_path / "none", model=reader / "model" / "checkpoint", segment="none")
    with pytest.raises(InputError, match=r"holds no posteriors; expected .*--save-posteriors"):
        decoded(tmp_path / "none", tmp_path / "x")


@pytest.mark.nightly
def test_tuning_is_no_worse_than_the_weights_as_given(reader: Path, kept: Path, tmp_path: Path, audiomill: Any) -> None:
    config = TuneJobConfig(
        inputs=(str(kept),),
        decoder=SearchConfig(beam_size=8, lm=str(reader / "words.arpa"), lm_weight=2.5, word_insertion_score=-3.0),
        output=RedecodeOutputConfig(output=str(tmp_path / "tuned"), quiet=True),
        tune=build(type(TuneJobConfig.__dataclass_fields__["tune"].default), {"trials": 4}),
    )
    found = tune(config, Console(quiet=True))
    assert found["best"]["wer"] <= found["first"]["wer"] and found["num_trials"] == 4
    done = audiomill(
        "decode", str(kept), "--config", str(tmp_path / "tuned" / "decoder.yaml"), "--output", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert wer(tmp_path / "out") == pytest.approx(found["best"]["wer"], abs=1e-9)
    assert len(json.loads((tmp_path / "tuned" / "trials.json").read_text())) == 4
    at_once = RedecodeConfig(
        inputs=(str(kept),),
        decoder=config.decoder,
        tuned=TunedConfig(tune_on=str(kept), tune_trials=4),
        output=RedecodeOutputConfig(output=str(tmp_path / "at-once"), quiet=True),
    )
    redecode_output(at_once, Console(quiet=True))
    assert wer(tmp_path / "at-once") == wer(tmp_path / "out"), "--tune-on finds the same weights"


def test_windows_that_overlap_are_read_as_one(reader: Path, tmp_path: Path) -> None:
    """A recording of 40 s in windows of 12: every word once, at once and again."""
    parts, texts = [], []
    for seed in range(30):
        texts.append("abc")
        parts += [spoken("abc", seed, noise=0.02), np.zeros(8000, np.int16)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(parts), RATE)
    options = {
        "model": reader / "model" / "checkpoint",
        "segment": "fixed",
        "max_segment_seconds": 12.0,
        "chunk_overlap_seconds": 2.0,
    }
    run(tmp_path / "long.wav", tmp_path / "greedy", save_posteriors=4, **options)
    run(tmp_path / "long.wav", tmp_path / "beam", beam_size=8, **options)
    decoded(tmp_path / "greedy", tmp_path / "again", beam_size=8)
    found = {name: rows(tmp_path / name, "recordings")[0]["text"] for name in ("greedy", "beam", "again")}
    assert len(rows(tmp_path / "beam", "segments")) > 3
    assert found["beam"] == found["again"]
    assert score_pair(found["greedy"], found["beam"], None)[0].rate < 0.05
    starts = [word["start_s"] for row in rows(tmp_path / "again", "segments") for word in row["words"]]
    assert starts == sorted(starts) and len(starts) >= 28
    assert sum(row["num_frames"] for row in rows(tmp_path / "greedy", "posteriors")) == pytest.approx(
        sum(map(len, parts)) / 320, abs=3
    )


def test_the_batch_does_not_matter_to_beams(reader: Path) -> None:
    text = TranscriptConfig(decoder=SearchConfig(beam_size=8, lm=str(reader / "words.arpa"), num_best=2))
    model = loaded(reader / "model" / "checkpoint", transcripts=text)
    clips = [
        Segment(spoken(word, seed, NOISE), 0, 0, (str(seed), None), 0, None)
        for seed, word in enumerate(["abc", "a cab ab", "b"])
    ]
    together = model.transcripts(clips, [answer.text for answer in model.forward(clips)])
    for clip, found in zip(clips, together, strict=True):
        (alone,) = model.transcripts([clip], [model.forward([clip])[0].text])
        assert alone.text == found.text and alone.nbest[0].score == pytest.approx(found.nbest[0].score, abs=1e-3)


def test_agreement_is_high_where_the_sound_is_clear(reader: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "clear", range(600, 620), noise=0.02)
    write_corpus(tmp_path / "noisy", range(600, 620), noise=0.5)
    means = {}
    for name in ("clear", "noisy"):
        run(
            tmp_path / name,
            tmp_path / f"{name}-out",
            model=reader / "model" / "checkpoint",
            segment="none",
            consistency_samples=3,
        )
        found = [row["self_consistency"] for row in rows(tmp_path / f"{name}-out", "segments")]
        assert all(0 <= each <= 1 for each in found)
        means[name] = np.mean(found)
    assert means["clear"] > means["noisy"] + 0.1


@pytest.mark.nightly
def test_a_causal_language_model_weighs_the_best_texts_again(reader: Path, kept: Path, tmp_path: Path) -> None:
    """A small GPT-2 with random weights: its scores are those of one text alone, and the order follows them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = {token: number for number, token in enumerate([*CTC_TOKENS, " "])}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>").save_pretrained(
        tmp_path / "lm"
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(letters), n_embd=16, n_layer=1, n_head=2, n_positions=64)).eval()
    with torch.no_grad():
        model.lm_head.weight *= 20
    model.save_pretrained(tmp_path / "lm")
    rescorer = Rescorer(str(tmp_path / "lm"), {}, "cpu")
    texts = ["abc", "a", "cab ab", ""]
    together = rescorer.score(texts)
    assert [rescorer.score([text])[0] for text in texts] == pytest.approx(together, abs=1e-4)
    ids = torch.tensor([[letters[c] for c in ("<s>", *"abc")]])
    logprobs = model(ids).logits.log_softmax(-1)[0]
    assert together[0] == pytest.approx(float(sum(logprobs[at, ids[0, at + 1]] for at in range(3))), abs=1e-4)
    decoded(kept, tmp_path / "out", num_best=4, rescore_model=str(tmp_path / "lm"), rescore_weight=5.0)
    for row in rows(tmp_path / "out", "segments"):
        scores = [each["score"] for each in row["nbest"]]
        assert scores == sorted(scores, reverse=True)
        for each in row["nbest"]:
            assert each["score"] == pytest.approx(each["acoustic"] + 5.0 * each["rescored"], abs=1e-2)


def test_what_needs_a_ctc_model_or_a_beam_says_so(whisper: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE, np.int16), RATE)
    with pytest.raises(ModelError, match=r"--num-best: .* keeps one text of a segment"):
        run(tmp_path / "a.wav", tmp_path / "out", model=whisper, beam_size=4, num_best=2)
    with pytest.raises(ModelError, match=r"--lm: .* does not read it; leave it out"):
        run(tmp_path / "a.wav", tmp_path / "out", model=whisper, beam_size=4, lm="words.arpa")
    with pytest.raises(ModelError, match="--save-posteriors"):
        run(tmp_path / "a.wav", tmp_path / "out", save_posteriors=4)
    with pytest.raises(UsageError, match="--lm needs a beam search"):
        SearchConfig(lm="x.arpa")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
