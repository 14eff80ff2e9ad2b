"""Checkpoints as people save them: family, way of saving and quirk, against transformers' own processor, model and text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ConfigMismatchError, ModelError, RunError
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.synth import RATE, TINY, encode, noise

LETTERS = ["|", *"etaonihsrdlumwcfgypbvkxjqz'"]
PLAIN = ["<pad>", "<s>", "</s>", "<unk>", *LETTERS]
BLANK_LAST = [*LETTERS, "[UNK]", "[PAD]"]
QUIET = (noise(2 * RATE) // 20).astype(np.int16)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {"feat_extract_norm": "group"}),
    "hubert": ("Hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    "hubert-batch-norm": ("Hubert", {"conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", {"num_buckets": 32, "max_bucket_distance": 80}),
    "data2vec": ("Data2VecAudio", {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}),
    "unispeech-sat": ("UniSpeechSat", {}),
}


def model_of(folder: Path, family: str, size: int, **other: Any) -> Any:
    name, settings = FAMILIES[family]
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**{**TINY, **settings, "vocab_size": size, **other})
    model = getattr(transformers, f"{name}ForCTC")(config).eval()
    with torch.no_grad():
        model.lm_head.weight *= 40
    model.save_pretrained(folder)


def write_vocabulary(folder: Path, tokens: list[str]) -> None:
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))


def tokenizer_of(folder: Path, tokens: list[str], **special: Any) -> Any:
    write_vocabulary(folder, tokens)
    return transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **{"word_delimiter_token": "|", **special})


def as_version_5(folder: Path, family: str, normalize: bool) -> None:
    """One processor_config.json."""
    model_of(folder, family, len(PLAIN))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer_of(folder, PLAIN)).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()


def as_version_4(folder: Path, family: str, normalize: bool) -> None:
    """Files as transformers 4.40 wrote them."""
    model_of(folder, family, len(PLAIN))
    write_vocabulary(folder, PLAIN)
    files = {
        "preprocessor_config.json": {
            "do_normalize": normalize, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_side": "right",
            "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000, "processor_class": "Wav2Vec2Processor",
        },
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(number): {"content": token, "lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": False}
                for number, token in enumerate(PLAIN[:4])
            },
            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "word_delimiter_token": "|",
            "clean_up_tokenization_spaces": True, "do_lower_case": False, "target_lang": None, "replace_word_delimiter_char": " ",
            "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "Wav2Vec2CTCTokenizer",
        },
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def by_hand(folder: Path, family: str, normalize: bool) -> None:
    """Weights, a vocabulary, and how audio is prepared: no word about the tokenizer."""
    model_of(folder, family, len(PLAIN))
    write_vocabulary(folder, PLAIN)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)


def with_blank_last(folder: Path, family: str, normalize: bool) -> None:
    """config.json says another blank than the tokenizer, which writes the text."""
    model_of(folder, family, len(BLANK_LAST), pad_token_id=0)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": None, "eos_token": None}
    tokenizer_of(folder, BLANK_LAST, **special).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)


def with_tokens_beyond_the_head(folder: Path, family: str, normalize: bool) -> None:
    """The tokenizer adds <s> and </s> to a head that was trained without them."""
    tokens = ["<pad>", "<unk>", *LETTERS]
    model_of(folder, family, len(tokens), bos_token_id=None, eos_token_id=None)
    tokenizer_of(folder, tokens).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)


WAYS: tuple[Callable[[Path, str, bool], None], ...] = (
    as_version_5,
    as_version_4,
    by_hand,
    with_blank_last,
    with_tokens_beyond_the_head,
)
TABLE = [
    *((way, family, False) for way in WAYS[:3] for family in FAMILIES),
    *((way, "wav2vec2", True) for way in WAYS),
    *((way, "wavlm", False) for way in WAYS[3:]),
]


def theirs(folder: Path) -> tuple[torch.Tensor, str]:
    """Logits and text of plain transformers."""
    model = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    is_alone = not (folder / "tokenizer_config.json").exists()
    kind = transformers.Wav2Vec2CTCTokenizer if is_alone else transformers.AutoTokenizer
    tokenizer = kind.from_pretrained(folder)
    heard = transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=tokenizer, feature_extractor=extractor
    )
    waveform = QUIET.astype(np.float32) / 32768
    with torch.inference_mode():
        logits = model(**extractor(waveform, sampling_rate=RATE, return_tensors="pt")).logits[0]
    return logits, heard({"raw": waveform, "sampling_rate": RATE})["text"].strip()


@pytest.mark.parametrize(
    ("way", "family", "normalize"), TABLE, ids=[f"{way.__name__}-{family}-{norm}" for way, family, norm in TABLE]
)
def test_a_checkpoint_means_what_transformers_says(
    tmp_path: Path, way: Callable[[Path, str, bool], None], family: str, normalize: bool
) -> None:
    way(tmp_path, family, normalize)
    logits, text = theirs(tmp_path)
    model, segment = loaded(tmp_path), Segment(QUIET, 0, 0, ("a", None), 0, None)
    probabilities, _ = model.posteriors(segment)
    assert np.abs(np.log(probabilities) - logits.log_softmax(-1).numpy()).max() < 1e-3
    (ours,) = model.transcripts([segment], [model.forward([segment])[0].text])
    assert ours.text == text and len(text) > 10


def test_quiet_audio_gives_the_vectors_of_transformers(tmp_path: Path) -> None:
    """Nothing is made louder for a model that was not trained on normalised audio."""
    as_version_5(tmp_path / "m", "wavlm", normalize=False)
    (tmp_path / "a.wav").write_bytes(encode(QUIET))
    run(tmp_path / "a.wav", tmp_path / "out", "embed", model=tmp_path / "m", layers="2", pool="mean", dtype="fp32")
    model = transformers.AutoModel.from_pretrained(tmp_path / "m").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "m")
    inputs = processor(QUIET.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs, output_hidden_states=True).hidden_states[2][0].mean(0).numpy()
    (row,) = rows(tmp_path / "out", "embeddings")
    assert np.linalg.norm(np.array(row["values"]) - expected) < 1e-4 * np.linalg.norm(expected)


def test_what_lies_beside_the_weights_belongs_to_the_output(tmp_path: Path) -> None:
    by_hand(tmp_path / "m", "wav2vec2", normalize=True)
    (tmp_path / "a.wav").write_bytes(encode(QUIET))
    run(tmp_path / "a.wav", tmp_path / "out", model=tmp_path / "m")
    settings = json.loads((tmp_path / "m" / "vocab.json").read_text())
    (tmp_path / "m" / "vocab.json").write_text(json.dumps(settings, indent=3))
    run(tmp_path / "a.wav", tmp_path / "out", model=tmp_path / "m")  # says the same
    settings["e"], settings["t"] = settings["t"], settings["e"]
    (tmp_path / "m" / "vocab.json").write_text(json.dumps(settings))
    with pytest.raises(
        ConfigMismatchError, match=r"--model-files was \{'vocab.json': '\w+'\}, now \{'vocab.json': '\w+'\}"
    ):
        run(tmp_path / "a.wav", tmp_path / "out", model=tmp_path / "m")


@pytest.mark.parametrize("kind", ["transcribe", "embed"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, kind: str) -> None:
    by_hand(tmp_path / "m", "hubert", normalize=True)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    name = next(name for name in sorted(weights) if "feed_forward.output_dense.weight" in name)
    weights[name][0, 0] = torch.nan
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    (tmp_path / "a.wav").write_bytes(encode(QUIET))
    with pytest.raises(ModelError, match=r"feed_forward\.output_dense\.weight holds values that are not finite"):
        run(tmp_path / "a.wav", tmp_path / "out", kind, model=tmp_path / "m")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("transcribe", {"segment": "fixed"}),
        ("embed", {"layer": 2}),
        ("encode", {"codebook": "book.npy", "codebook_layer": 2}),
    ],
)
def test_outputs_that_are_not_finite_stop_the_job_with_their_name(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """Weights that are numbers may still overflow: every code was 0, or the recordings were lost one by one."""
    by_hand(tmp_path / "m", "hubert", normalize=True)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    for name in weights:
        if "layers.1.feed_forward" in name and name.endswith("weight"):
            weights[name] = torch.full_like(weights[name], 1e30)
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(encode(QUIET))
    width = json.loads((tmp_path / "m" / "config.json").read_text())["hidden_size"]
    np.save(tmp_path / "book.npy", np.eye(4, width, dtype=np.float32))
    options = {name: tmp_path / value if name == "codebook" else value for name, value in options.items()}
    with pytest.raises(RunError, match=r"not finite, first at .*(layers\.1\.|layer 2)"):
        run([tmp_path / "a.wav", tmp_path / "b.wav"], tmp_path / "out", kind, model=tmp_path / "m", **options)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("preprocessor_config.json", '{"do_normalize": tru', "cannot be read"),
        ("preprocessor_config.json", '{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000}', "hears 8000 Hz"),
        ("vocab.json", None, "no tokenizer for its CTC head"),
        ("tokenizer_config.json", "{", "no tokenizer for its CTC head"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_one_error_that_names_the_file(
    tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    by_hand(tmp_path, "wav2vec2", normalize=True)
    (tmp_path / name).unlink(missing_ok=True) if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=told):
        loaded(tmp_path)


def test_a_language_of_mms_is_that_of_its_adapter_also_when_it_is_decoded_again(tmp_path: Path) -> None:
    from audiomill.models.checkpoint import find_checkpoint
    from audiomill.models.ctc.vocabulary import vocabulary_of
    from tests.support.jobs_by_hand import ModelConfig

    own = ["<pad>", "<s>", "</s>", "<unk>", "|", *"zyxwvutsrqponmlkjihgfedcba'é"]
    model_of(tmp_path, "wav2vec2", len(PLAIN), adapter_attn_dim=8, do_stable_layer_norm=True)
    numbers = [{token: number for number, token in enumerate(tokens)} for tokens in (PLAIN, own)]
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": numbers[0], "fra": numbers[1]}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), target_lang="eng")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": numbers[0], "fra": numbers[1]}))
    model = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path)
    adapter = {name: tensor.detach().clone() for name, tensor in model._get_adapters().items()}
    adapter["lm_head.weight"], adapter["lm_head.bias"] = torch.randn(len(own), 32), torch.zeros(len(own))
    save_file(adapter, tmp_path / "adapter.fra.safetensors", {"format": "pt"})
    checkpoint = find_checkpoint(ModelConfig(model=str(tmp_path)), {})
    assert vocabulary_of(checkpoint, "fra", False).tokens == tuple(own)
    assert vocabulary_of(checkpoint, None, False).tokens == tuple(PLAIN)
    with pytest.raises(ModelError, match="has no tokens of it; expected one of eng, fra"):
        vocabulary_of(checkpoint, "deu", False)


def test_special_tokens_are_told_and_can_be_dropped(tmp_path: Path) -> None:
    from rich.console import Console

    from audiomill.runs.job import run_job
    from audiomill.watch.progress import summary_lines
    from tests.support.jobs_by_hand import job

    by_hand(tmp_path / "m", "wav2vec2", normalize=True)
    (tmp_path / "a.wav").write_bytes(encode(QUIET))
    found = []
    for drops in (False, True):
        config = job(
            tmp_path / "a.wav",
            tmp_path / f"out-{drops}",
            model=tmp_path / "m",
            segment="none",
            drop_special_tokens=drops,
        )
        lines = summary_lines(run_job(config, Console(quiet=True)))
        (row,) = rows(tmp_path / f"out-{drops}", "segments")
        found.append((row["text"], any("--drop-special-tokens" in line for line in lines), row["words"]))
    (text, is_told, _), (without, is_told_again, words) = found
    assert "<unk>" in text and is_told and not is_told_again
    assert without == " ".join(text.replace("<unk>", "").replace("<s>", "").replace("</s>", "").split())
    assert " ".join(word["word"] for word in words) == without


@pytest.mark.parametrize("wrong", ["processor", "weights"])
def test_the_verification_asks_transformers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """What is wrong alone and in a batch alike is noticed compared with transformers alone."""
    from audiomill.models.batch import Difference
    from audiomill.models.frames import wav2vec2_loading as frame_model
    from audiomill.stages.steps.verify import differs_from_transformers, parity_with_transformers

    by_hand(tmp_path / "m", "wavlm", normalize=False)
    segment = Segment(QUIET, 0, 0, ("a", None), 0, None)
    parity = parity_with_transformers(loaded(tmp_path / "m"), [segment])
    assert parity.inputs < 1e-6 and parity.outputs < 1e-5 and parity.note == ""
    if wrong == "processor":
        monkeypatch.setattr(frame_model, "normalizes", lambda folder: True)
        model = loaded(tmp_path / "m")
    else:
        model = loaded(tmp_path / "m")
        with torch.no_grad():
            model._model.lm_head.weight[3] *= 1.5
    inputs, outputs, _ = parity_with_transformers(model, [segment])
    told = differs_from_transformers(Difference(inputs_apart=inputs, outputs_apart=outputs), "fp32")
    assert told is not None and ("processor gives" if wrong == "processor" else "transformers' own") in told


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    from audiomill.stages.steps.verify import parity_with_transformers

    by_hand(tmp_path, "wav2vec2", normalize=True)
    (tmp_path / "preprocessor_config.json").unlink()
    segment = Segment(QUIET, 0, 0, ("a", None), 0, None)
    assert "no preprocessor_config.json" in parity_with_transformers(loaded(tmp_path), [segment]).note


def test_a_beam_search_knows_tokens_that_the_head_lacks(tmp_path: Path) -> None:
    """<s> and </s> of the tokenizer alone made decoders refuse the model (transformers#15392)."""
    with_tokens_beyond_the_head(tmp_path / "m", "wav2vec2", normalize=True)
    (tmp_path / "a.wav").write_bytes(encode(QUIET))
    run(tmp_path / "a.wav", tmp_path / "out", model=tmp_path / "m", segment="none", beam_size=4)
    assert rows(tmp_path / "out", "segments")[0]["text"]
