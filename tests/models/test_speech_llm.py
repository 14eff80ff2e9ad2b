"""Speech LLMs: prefix, language model and training against transformers; others' layouts; what users get told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import INT8
from audiomill.config.fields import build
from audiomill.config.text import TranscriptConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import VectorRequest
from audiomill.models.seq2seq.generation import MAX_ROWS
from audiomill.models.seq2seq.hypothesis import DecodingOptions
from audiomill.models.speech_llm.learner import ProjectorLearner, new_projector_learner
from audiomill.models.speech_llm.projector import Projector, loudness_of
from audiomill.models.speech_llm.settings import AUDIO
from tests.conftest import made_once
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import check_accounts, loaded, part_files, rows, run
from tests.support.language_models import LAYERS, save_language_model, save_speech_llm, train_language_model
from tests.support.scale import daily
from tests.support.speech_llm_checkpoints import SAVERS
from tests.support.synth import encode, noise
from tests.support.tone_language import sentence, write_corpus
from tests.support.training import said, trained

FIXED = [16_000, 40_123, 700, 3_000, 16_000]
MAX_NEW = 30
CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}w:{% endif %}"


def wanted(**options: Any) -> TranscriptConfig:
    return TranscriptConfig(**{"fallback": False, "max_new_tokens": MAX_NEW, **options})


def segments(lengths: list[int]) -> list[Segment]:
    return [Segment(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


LIKE_LLAMA = {"mistral", "qwen2"}


@pytest.fixture(
    scope="session",
    params=[pytest.param(each, marks=pytest.mark.nightly) if each in LIKE_LLAMA else each for each in sorted(LAYERS)],
)
def each_kind(
    request: pytest.FixtureRequest, wav2vec2_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A speech LLM, and its language model alone."""
    root = tmp_path_factory.mktemp(f"speech-llm-{request.param}")
    lm = save_language_model(root / "lm", request.param)
    return save_speech_llm(root / "whole", wav2vec2_folder, lm, frame_stacking=3), lm


@pytest.fixture(scope="session")
def llm(wav2vec2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("speech-llm")
    return save_speech_llm(root / "whole", wav2vec2_folder, save_language_model(root / "lm", "qwen3"), frame_stacking=3)


def written_by_generate(lm: Any, prefix_PD: torch.Tensor, **options: Any) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities, the end included."""
    embedded = prefix_PD / getattr(lm.config, "embedding_multiplier", 1.0)
    found = lm.generate(
        inputs_embeds=embedded[None],
        attention_mask=torch.ones(1, len(embedded)),
        max_new_tokens=MAX_NEW,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    scores = [float(each[0].log_softmax(-1).max()) for each in found.scores]
    tokens = found.sequences[0].tolist()
    return tokens[: tokens.index(2)] if 2 in tokens else tokens, scores


def test_a_batch_writes_what_generate_writes_for_each_row_alone(each_kind: tuple[Path, Path]) -> None:
    whole, lm = each_kind
    model, theirs = loaded(whole, transcripts=wanted()), AutoModelForCausalLM.from_pretrained(lm).eval()
    batch = segments(FIXED)
    said = set()
    for segment, answer in zip(batch, model.forward(batch), strict=True):
        tokens, logprobs = written_by_generate(theirs, model._listening.prefixes([segment])[0])
        assert answer.text.tokens == tokens
        ours = answer.text.chunks[0].decoded.logprobs
        assert np.abs(np.array(ours) - logprobs[: len(ours)]).max(initial=0.0) < 1e-4
        said.add(tuple(tokens))
    assert len(said) >= 3, "it says more than one thing"


def test_rows_that_wait_beams_and_int8_write_the_same_as_alone(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_ROWS, "cpu", 2)
    model, batch = loaded(llm, transcripts=wanted()), segments(FIXED)
    for how in (DecodingOptions(), DecodingOptions(num_beams=3)):
        together = [each.tokens for each in model.decode(batch, how)]
        assert together == [model.decode([each], how)[0].tokens for each in batch]
    coarse = loaded(llm, INT8, transcripts=wanted())
    alone = [coarse.forward([each])[0].text.tokens for each in batch]
    assert [each.text.tokens for each in coarse.forward(batch)] == alone


def test_beams_are_those_of_generate(llm: Path) -> None:
    model, theirs = loaded(llm, transcripts=wanted()), AutoModelForCausalLM.from_pretrained(llm / "lm").eval()
    for segment in segments(FIXED[:3]):
        prefix = model._listening.prefixes([segment])[0]
        tokens, _ = written_by_generate(theirs, prefix, num_beams=3, length_penalty=1.0)
        assert model.decode([segment], DecodingOptions(num_beams=3))[0].tokens == tokens


def test_the_prefix_is_prompt_frames_in_steps_and_prompt(llm: Path, wav2vec2_folder: Path) -> None:
    """Seven frames in steps of three are three steps: the last one is filled up, nothing is dropped."""
    model = loaded(llm, transcripts=wanted())
    segment = segments([16_000])[0]
    frames = loaded(wav2vec2_folder, vectors=(VectorRequest(layer=2),)).forward([segment])[0].readout.vectors[0]
    prefix = model._listening.prefixes([segment])[0]
    assert len(prefix) == -(-frames.num_frames // 3) + 1  # a newline behind the audio
    projector = Projector(2, 3, 8, 4, loudness=0.5)
    steps = projector(torch.ones(1, 7, 2))
    whole = projector(torch.cat([torch.ones(1, 7, 2), torch.zeros(1, 2, 2)], 1))
    assert steps.shape == (1, 3, 4) and torch.equal(steps, whole)
    assert steps.detach().pow(2).mean(-1).sqrt().numpy() == pytest.approx(0.5, rel=1e-3)
    assert loudness_of(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("kind", sorted(SAVERS))
def test_others_layouts_write_what_generate_writes(kind: str, tmp_path: Path) -> None:
    folder = SAVERS[kind](tmp_path / kind)
    model = loaded(folder, transcripts=wanted(max_new_tokens=12))
    listening, batch = model._listening, segments([16_000, 40_123, 700])
    theirs = getattr(transformers, listening._layout.kind).from_pretrained(folder).eval()
    for segment, answer in zip(batch, model.forward(batch), strict=True):
        inputs = listening.inputs(segment)
        options = {"max_new_tokens": 12, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        found = theirs.generate(**inputs, **options)
        margin = min(float(scores[0].topk(2).values.diff().abs()) for scores in found.scores)
        tokens = found.sequences[0].tolist()[inputs["input_ids"].shape[1] :]
        known = [each for each in tokens if each not in listening._lm.ends]
        if (
            theirs.config.audio_token_id in known
        ):  # which only random weights write, and Granite's `generate` reads as another
            known = known[: known.index(theirs.config.audio_token_id)]
        assert margin < 1e-3 or answer.text.tokens[: len(known)] == known
    assert model.parity(batch[0]).outputs < 1e-5


def test_lora_weights_of_granite_speech_are_not_left_out(tmp_path: Path) -> None:
    """What it writes with them is not what it writes without."""
    from tests.support.speech_llm_checkpoints import save_granite_speech

    folder = save_granite_speech(tmp_path / "granite", lora_rank=2)
    model, batch = loaded(folder, transcripts=wanted(max_new_tokens=8)), segments([16_000, 3_000, 40_123, 9_000])
    with_them = [answer.text.tokens for answer in model.forward(batch)]
    gone = (folder / "adapter_config.json").rename(tmp_path / "adapter_config.json")
    theirs = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad(), safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for name, weight in theirs.model.language_model.named_parameters():
            before = f"base_model.model.model.language_model.{name.removesuffix('.weight')}"
            if f"{before}.lora_A.weight" in file.keys():  # noqa: SIM118  (not a dict)
                weight += (
                    3 / 2 * (file.get_tensor(f"{before}.lora_B.weight") @ file.get_tensor(f"{before}.lora_A.weight"))
                )
    compared = 0
    for segment, tokens in zip(batch, with_them, strict=True):
        inputs = model._listening.inputs(segment)
        found = theirs.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()[inputs["input_ids"].shape[1] :]
        known = [each for each in found if each not in model._listening._lm.ends]
        audio = theirs.config.audio_token_id
        known = known[: known.index(audio)] if audio in known else known
        assert tokens[: len(known)] == known
        compared += len(known)
    assert compared > 4
    with pytest.raises(ModelError, match="its LoRA weights are missing"):
        loaded(folder, transcripts=wanted())
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "has_lora_adapter": False}))
    (folder / "adapter_model.safetensors").unlink()
    without = [answer.text.tokens for answer in loaded(folder, transcripts=wanted(max_new_tokens=8)).forward(batch)]
    assert with_them != without and gone.exists()


def test_the_language_that_qwen_names_is_told() -> None:
    from audiomill.models.qwen3_asr.qwen3_request import QWEN3_LAYOUT

    assert QWEN3_LAYOUT.parse_reply("language German<asr_text>guten Tag") == ("guten Tag", "de")
    assert QWEN3_LAYOUT.parse_reply("language None<asr_text>") == ("", None)
    assert QWEN3_LAYOUT.parse_reply("guten Tag") == ("guten Tag", None)


def test_granite_hears_with_a_spectrogram_that_stops_at_whole_pairs(tmp_path: Path) -> None:
    """A tone of 1 kHz: its band is loudest, silence lies 8 below in logarithms of ten, two of four quarters."""
    from audiomill.models.granite_speech_llm.granite_request import GraniteProcessor

    processor = GraniteProcessor(SAVERS["granite_speech"](tmp_path))
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    features = processor.features(tone)[0]
    assert features.shape == (50, 160)  # 101 frames
    assert set(features[5:45].reshape(-1, 80).argmax(-1).tolist()) <= {27, 28, 29}
    assert float(features.max() - features.min()) == pytest.approx(2.0)


def test_a_run_keeps_the_laws(llm: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for at, count in enumerate((30_000, 9_000, 64_000, 16_000, 2_000)):
        (tmp_path / "in" / f"{at}.wav").write_bytes(encode(noise(count, seed=at) if at else np.zeros(count, np.int16)))
    options: dict[str, Any] = {"model": llm, "segment": "none", "max_new_tokens": 12, "fallback": False}
    run(tmp_path / "in", tmp_path / "out", **options)
    run(tmp_path / "in", tmp_path / "other", part_seconds=3.0, batch_seconds=5.0, **options)
    check_accounts(tmp_path / "out")
    found, other = ({row["id"]: row["text"] for row in rows(tmp_path / each, "segments")} for each in ("out", "other"))
    assert found == other and len(found) == 5 and any(found.values())


@pytest.fixture(scope="session")
def tone_llm(tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lm/, clips/ and training/: a language model of letters, and a projector before it that reads tones."""

    def make(root: Path) -> None:
        write_corpus(root / "clips", range(2000, 2400))
        train_language_model(root / "lm", [sentence(number) for number in range(4000, 6000)], updates=daily(250, 400))
        options = {
            "model": str(tone_model / "model" / "checkpoint"),
            "lm": str(root / "lm"),
            "projector": True,
            "frame_stacking": 4,
        }
        trained(
            root / "clips",
            root / "training",
            dev=str(tone_model / "dev"),
            from_scratch=False,
            max_updates=daily(200, 320),
            batch_seconds=30.0,
            learning_rate=None,
            evaluate_every=daily(100, 160),
            **options,
        )

    return made_once(tmp_path_factory, "tone-llm", make)


@pytest.mark.nightly
def test_a_projector_learns_to_read_and_its_checkpoint_transcribes(
    tone_llm: Path, tone_model: Path, tmp_path: Path
) -> None:
    report = json.loads((tone_llm / "training" / "result.json").read_text())
    assert report["objective"] == "projector" and report["best_dev_wer"] < 0.5
    run(
        tone_model / "dev",
        tmp_path / "out",
        model=tone_llm / "training" / "checkpoint",
        segment="none",
        fallback=False,
    )
    written = {Path(row["source"]).stem: row["text"] for row in rows(tmp_path / "out", "recordings")}
    right = sum(text == (tone_model / "dev" / f"{name}.txt").read_text() for name, text in written.items())
    assert right >= 5
    page = (tone_llm / "training" / "report.html").read_text()
    assert "Dev clips" in page and f"update {daily(200, 320)}" in page


def test_a_ctc_model_tells_when_its_words_were_said(tone_llm: Path, tone_model: Path, tmp_path: Path) -> None:
    job = {
        "inputs": [str(tone_model / "dev")],
        "output": "out",
        "segment": "none",
        "models": [
            {"model": str(tone_llm / "training" / "checkpoint"), "transcripts": {}},
            {"model": str(tone_model / "model" / "checkpoint"), "align": True},
        ],
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = in_process(tmp_path, "run", "job.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    parse_reply = [row for row in rows(tmp_path / "out", "segments") if row["text"]]
    for row in parse_reply:
        assert [word["word"] for word in row["words"]] == row["text"].split()
        starts = [word["start_s"] for word in row["words"]]
        assert starts == sorted(starts) and starts[-1] < row["stop_s"]


@pytest.mark.nightly  # daily: a training of a projector, above, and the loop with another student, in tests/train/test_self_training.py
def test_the_loop_trains_projectors_as_students(tone_llm: Path, tone_model: Path, tmp_path: Path) -> None:
    train = {
        "model": str(tone_model / "model" / "checkpoint"), "projector": True, "lm": str(tone_llm / "lm"), "frame_stacking": 4, "max_updates": 30,
        "batch_seconds": 20,
    }  # fmt: skip
    for start in ("pretrained", "teacher"):
        job = {
            "output": f"loop-{start}",
            "labelled": [str(tone_model / "labelled")],
            "unlabelled": [str(tone_llm / "clips")],
            "dev": [str(tone_model / "dev")],
            "test": [str(tone_model / "dev")],
            "loop": {"rounds": 1, "start": start},
            "label": {"segment": "none", "fallback": False, "engine": "local"},
            "select": {"max_expected_wer": 1.0},
            "train": train,
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        done = in_process(tmp_path, "self-train", "job.yaml", "--quiet")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"loop-{start}" / "round-1" / "training" / "checkpoint" / "config.json").exists()


def test_silence_stays_wordless_behind_a_trained_projector(tone_llm: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    hiss = np.random.default_rng(0).normal(0, 20, 24_000).astype(np.int16)
    for name, pcm in (("zeros", np.zeros(24_000, np.int16)), ("hiss", hiss)):
        (tmp_path / "in" / f"{name}.wav").write_bytes(encode(pcm))
    options: dict[str, Any] = {"model": tone_llm / "training" / "checkpoint", "segment": "none"}
    run(tmp_path / "in", tmp_path / "out", **options)
    assert [row["text"] for row in rows(tmp_path / "out", "recordings")] == ["", ""]
    run(tmp_path / "in", tmp_path / "plain", fallback=False, **options)  # what the projector has learnt of it
    written = {Path(row["source"]).stem: row["text"] for row in rows(tmp_path / "plain", "recordings")}
    assert written["zeros"] == ""


def test_a_trace_shows_the_way_from_frames_to_choices(tone_llm: Path, tone_model: Path, tmp_path: Path) -> None:
    clip = tone_model / "dev" / "0301.wav"
    model = str(tone_llm / "training" / "checkpoint")
    found = in_process(tmp_path, "trace", str(clip), "--model", model, "--output", "way")
    assert found.returncode == 0, found.stderr
    names = ["waveform", "log-mel spectrogram", "encoder output", "projector output", "first choices"]
    assert [line.split("  ")[1].strip() for line in found.stdout.splitlines()[:5]] == names
    page = (tmp_path / "way" / "index.html").read_text()
    assert all(f"<h2>{number}. {name}</h2>" in page for number, name in enumerate(names, 1))
    text = found.stdout.split("text: ")[1].splitlines()[0]
    assert f"{len(text) + 1} tokens x 5 choices" in page and "12.5 Hz" in page  # letters and the end; frames in fours
    refused = in_process(tmp_path, "trace", str(clip), "--model", model, "--layers", "1", "--output", "x")
    assert refused.returncode == 2 and "gives no hidden states" in refused.stderr


def learner_of(encoder: Path, lm: Path, **options: Any) -> ProjectorLearner:
    torch.manual_seed(0)
    config = build(TrainConfig, {"model": str(encoder), "lm": str(lm), "device": "cpu", "frame_stacking": 4, **options})
    return new_projector_learner(encoder, config, [], torch.device("cpu"))


def test_the_loss_is_that_of_the_language_model_row_by_row(wav2vec2_folder: Path, tmp_path: Path) -> None:
    """Each clip alone through transformers' `labels`, which are averaged over the tokens of a text."""
    lm = save_language_model(tmp_path / "lm", "granite")
    learner = learner_of(wav2vec2_folder, lm, frame_dropout=0.0, no_speech_augment_prob=0.0)
    theirs = AutoModelForCausalLM.from_pretrained(lm).eval()
    clips, texts = [noise(n, seed=n) for n in (8_000, 20_000, 5_000)], ["ab c", "a longer text", "hm"]
    labels = learner.labels(said(*texts), np.array([len(clip) for clip in clips]))
    loss = learner.loss(clips, labels, np.ones(3, np.float32), 0)
    expected, size = 0.0, 0
    for clip, text in zip(clips, labels, strict=True):
        prefix = learner._prefixes([clip], np.array([False]), np.random.default_rng(0))[0]
        tokens = torch.tensor(text)
        embedded = torch.cat([prefix, theirs.get_input_embeddings()(tokens)])
        target = torch.cat([torch.full((len(prefix),), -100), tokens])
        found = theirs(inputs_embeds=embedded[None], labels=target[None])
        expected, size = expected + float(found.loss.detach()) * len(tokens), size + len(tokens)
    assert float(loss.total) == pytest.approx(expected, rel=1e-4) and loss.size == size
    loss.total.backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in learner.model.projector.parameters())
    assert not any(each.requires_grad for each in learner._parts.lm.model.parameters())


def test_a_clip_longer_than_the_encoder_s_window_is_no_label(whisper: Path, llm: Path) -> None:
    """29 s fit Whisper's 30, but not at nine tenths of their speed."""
    learner = learner_of(whisper, llm / "lm")
    assert learner.labels(said("a", "a"), np.array([29 * 16_000, 31 * 16_000]))[1] == "longer_than_window"
    assert learner_of(whisper, llm / "lm", speed_augment=0.1).labels(said("a"), np.array([29 * 16_000])) == [
        "longer_than_window"
    ]


def test_a_spectrogram_may_stand_before_a_projector(llm: Path, tmp_path: Path) -> None:
    save_speech_llm(tmp_path / "on-mel", Path("log-mel://"), llm / "lm", model="log-mel://", frame_stacking=8)
    model = loaded(tmp_path / "on-mel", transcripts=wanted())
    assert len(model._listening.prefixes(segments([16_000]))[0]) == 13 + 1  # 100 frames in eights, a newline


def test_what_a_chat_is_told_of_the_day_is_always_the_same(tmp_path: Path) -> None:
    from audiomill.models.speech_llm.prompts import prompt_for

    lm = save_language_model(
        tmp_path / "lm", chat_template="{{ strftime_now('%Y-%m-%d') }} {{ messages[0]['content'] }}"
    )
    assert prompt_for(AutoTokenizer.from_pretrained(lm)).startswith("2025-01-01 ")


def test_a_clip_in_which_nobody_speaks_is_learnt_as_an_end(wav2vec2_folder: Path, llm: Path) -> None:
    learner = learner_of(wav2vec2_folder, llm / "lm", no_speech_augment_prob=0.999999)
    labels = learner.labels(said("some words", "and more"), np.array([9_000, 9_000]))
    assert learner.loss([noise(9_000)] * 2, labels, np.ones(2, np.float32), 3).size == 2.0


def test_a_training_that_goes_on_after_a_stop_ends_with_the_same_bytes(
    tone_model: Path, tone_llm: Path, tmp_path: Path
) -> None:
    """As a kill leaves it: the state of a run that had as many updates ahead."""
    from audiomill.train.fit import updating

    options: dict[str, Any] = {
        "model": str(tone_model / "model" / "checkpoint"), "lm": str(tone_llm / "lm"), "projector": True, "frame_stacking": 4,
        "from_scratch": False, "max_updates": 12, "batch_seconds": 10.0, "learning_rate": None, "save_minutes": 1e-9,
    }  # fmt: skip
    trained(tone_model / "labelled", tmp_path / "whole", **options)
    before, stopped = updating._Run.step, []

    def stop_at_seven(run: Any, update: Any) -> None:
        if update.number == 7 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        before(run, update)

    updating._Run.step = stop_at_seven  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(tone_model / "labelled", tmp_path / "stopped", **options)
    finally:
        updating._Run.step = before  # type: ignore[method-assign]
    trained(tone_model / "labelled", tmp_path / "stopped", **options)
    names = ("whole", "stopped")
    one, two = ((tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in names)
    assert stopped and one == two


@pytest.mark.nightly
def test_lora_weights_learn_are_kept_and_change_what_is_written(
    wav2vec2_folder: Path, llm: Path, tmp_path: Path
) -> None:
    learner = learner_of(wav2vec2_folder, llm / "lm", lora_rank=2, no_speech_augment_prob=0.0)
    assert len(learner.model.lora) == 3 * 4 * 2  # layers, projections, A and B
    labels = learner.labels(said("abc"), np.array([16_000]))
    learner.set_trainable(0, 1)
    learner.loss([noise(16_000)], labels, np.ones(1, np.float32), 0).total.backward()
    with torch.no_grad():
        for each in learner.model.lora.values():
            each.add_(torch.full_like(each, 0.3))
    batch = [noise(n, seed=n) for n in (16_000, 9_000)]
    texts = learner.transcripts(batch, [None] * len(batch))
    learner.save(tmp_path / "kept")
    model = loaded(tmp_path / "kept", transcripts=wanted(max_new_tokens=400))
    heard = [Segment(each, 0, 0, ("", None), 0, None) for each in batch]
    found = model.transcripts(heard, [answer.text for answer in model.forward(heard)])
    assert [each.text for each in found] == texts
    assert texts != learner_of(wav2vec2_folder, llm / "lm").transcripts(batch, [None] * len(batch))


def test_a_chat_model_is_asked_by_its_template(wav2vec2_folder: Path, tmp_path: Path) -> None:
    from audiomill.models.speech_llm.prompts import prompt_for, prompt_tokens

    lm = save_language_model(tmp_path / "lm", chat_template=CHAT)
    tokenizer = AutoTokenizer.from_pretrained(lm)
    prompt = prompt_for(tokenizer)
    assert prompt == f"<s>user: Transcribe the speech: {AUDIO}\nw:"
    before, after = prompt_tokens(tokenizer, prompt)
    assert before[0] == tokenizer.bos_token_id and before.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(after) == "\nw:"


def finetuned(tmp_path: Path, *options: str) -> str:
    """What the command says when it refuses."""
    clips = write_corpus(tmp_path / "clips", range(3))
    found = in_process(tmp_path, "finetune", str(clips), "--output", str(tmp_path / "out"), "--quiet", *options)
    said = found.stdout + found.stderr
    assert found.returncode in (1, 2) and "Traceback" not in said, said
    assert not (tmp_path / "out" / "run.json").exists(), "a refusal claims no folder"
    return said


def test_what_does_not_go_together_is_told_in_a_line(wav2vec2_folder: Path, llm: Path, tmp_path: Path) -> None:
    encoder, lm = str(wav2vec2_folder), str(llm / "lm")
    assert "no language model; add --lm" in finetuned(tmp_path, "--model", encoder, "--projector")
    assert "--lm: read by --projector alone" in finetuned(tmp_path, "--model", encoder, "--lm", lm)
    prompt = finetuned(tmp_path, "--model", encoder, "--projector", "--lm", lm, "--lm-prompt", "write this down")
    assert "0 places for audio; expected <audio>" in prompt
    both = finetuned(tmp_path, "--model", encoder, "--projector", "--lm", str(wav2vec2_folder))
    assert "a language model of kind wav2vec2; expected one of llama" in both
    assert "--encoder-layer 9" in finetuned(
        tmp_path, "--model", encoder, "--projector", "--lm", lm, "--encoder-layer", "9"
    )
    assert "has its own already" in finetuned(tmp_path, "--model", str(llm), "--lm", lm)
    assert "has its own already" in finetuned(tmp_path, "--model", str(llm), "--frame-stacking", "4")
    assert "--frame-stacking: read by --projector alone" in finetuned(
        tmp_path, "--model", encoder, "--frame-stacking", "4"
    )
    twice = finetuned(tmp_path, "--model", encoder, "--projector", "--lm", lm, "--objective", "ctc")
    assert "two things to learn by" in twice


def test_another_language_model_in_its_place_is_told(llm: Path, wav2vec2_folder: Path, tmp_path: Path) -> None:
    import shutil

    whole = shutil.copytree(llm, tmp_path / "whole")
    shutil.rmtree(whole / "lm")
    save_language_model(whole / "lm", "qwen3", hidden_size=64)
    with pytest.raises(ModelError, match="not the language model that was trained with"):
        loaded(whole, transcripts=wanted())
    settings = json.loads((whole / "config.json").read_text())
    from audiomill.models.checkpoint import weights_fingerprint

    (whole / "config.json").write_text(json.dumps({**settings, "lm_fingerprint": weights_fingerprint(whole / "lm")}))
    with pytest.raises(ModelError, match=r"the projector writes 32 values a step.*reads 64"):
        loaded(whole, transcripts=wanted())
    (whole / "config.json").write_text(json.dumps({**settings, "prompt": "write"}))
    with pytest.raises(ModelError, match="0 places for audio"):
        loaded(whole, transcripts=wanted())


def test_options_that_only_whisper_reads_are_refused(llm: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(16_000)))
    with pytest.raises((ModelError, UsageError), match="--prompt"):
        run(tmp_path / "in", tmp_path / "out", model=llm, prompt="names")
    assert not part_files(tmp_path / "out")
