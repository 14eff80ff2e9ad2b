"""Checkpoints from where users have them: Hugging Face folders (multilingual Whisper), CTranslate2 folders, quantised ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError, RunError
from audiomill.models.checkpoint import check_options, checkpoint_fingerprint, find_checkpoint
from audiomill.models.whisper import ctranslate2
from audiomill.models.whisper.parts import transformers_parts
from tests.support.jobs_by_hand import loaded
from tests.support.synth import noise, save_ctc_checkpoint

WORDS = [f"w{n}" for n in range(200)]
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>", "<|transcribe|>"]
SPECIALS += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
STAMPS = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_multilingual(tmp_path_factory.mktemp("multilingual"))


def save_multilingual(folder: Path, encoder_layers: int = 2, **generating: Any) -> Path:
    """A small multilingual Whisper with random weights, saved as the hub has them."""
    ids = {token: number for number, token in enumerate([*WORDS, *SPECIALS, *STAMPS])}
    torch.manual_seed(1)
    special = {name: ids[f"<|{name}|>"] for name in ("endoftext", "startoftranscript", "notimestamps")}
    config = WhisperConfig(
        vocab_size=len(ids), d_model=64, encoder_layers=encoder_layers, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=96, decoder_ffn_dim=96, num_mel_bins=128, decoder_start_token_id=special["startoftranscript"],
        eos_token_id=special["endoftext"], pad_token_id=special["endoftext"], bos_token_id=special["endoftext"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight *= 10
        model.model.decoder.embed_positions.weight.normal_(0, 2)
    model.save_pretrained(folder)
    generation = {
        "suppress_tokens": [1, 2, *(ids[t] for t in [*SPECIALS[1:], *STAMPS])], "begin_suppress_tokens": [3, special["endoftext"]], "is_multilingual": True,
        "lang_to_id": {f"<|{c}|>": ids[f"<|{c}|>"] for c in ("en", "de", "fr")},
        "task_to_id": {c: ids[f"<|{c}|>"] for c in ("transcribe", "translate")},
        "no_timestamps_token_id": special["notimestamps"], "decoder_start_token_id": special["startoftranscript"],
        "eos_token_id": special["endoftext"], "pad_token_id": special["endoftext"], "bos_token_id": special["endoftext"],
        "max_initial_timestamp_index": 50, "prev_sot_token_id": ids["<|startofprev|>"], "max_length": 448,
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(generation | generating))
    tokenizer = Tokenizer(WordLevel(ids, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def segments(languages: list[str | None]) -> list[Segment]:
    return [Segment(noise(20_000 * (n + 1), n), 0, 0, ("r", None), 0, language) for n, language in enumerate(languages)]


def load(folder: Path, **options: Any) -> Any:
    """Without timestamps, unless they are asked for: the checkpoint suppresses them."""
    return loaded(folder, transcripts=TranscriptConfig(**{"timestamps": False, **options}))


def hf_generate(folder: Path, pcm: Any, **options: Any) -> list[int]:
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    inputs = WhisperFeatureExtractor(feature_size=128)(
        pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
    )
    out = model.generate(**inputs, max_new_tokens=40, do_sample=False, num_beams=1, **options)
    ids = (out["sequences"] if isinstance(out, dict) else out)[0].tolist()
    return [i for i in ids if not len(WORDS) <= i < len(WORDS) + len(SPECIALS)]


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_given_languages_and_tasks_equal_generate_in_a_mixed_batch(multilingual: Path, task: str) -> None:
    batch = segments(["de", "en", "fr", "de"])
    heard = load(multilingual, task=task, timestamps=False, max_new_tokens=40).decode(batch)
    for row, segment in zip(heard, batch, strict=True):
        expected = hf_generate(multilingual, segment.pcm_T, language=segment.language, task=task)
        assert len(set(expected)) > 3, "a model that says one thing proves nothing"
        assert row.tokens == expected and row.language == segment.language and row.language_probability is None


def test_detected_languages_equal_hugging_face_with_their_probability(multilingual: Path) -> None:
    batch = segments([None, None, "fr", None])
    heard = load(multilingual, timestamps=False, max_new_tokens=5).decode(batch)
    model = WhisperForConditionalGeneration.from_pretrained(multilingual).eval()
    for row, segment in zip(heard, batch, strict=True):
        features = WhisperFeatureExtractor(feature_size=128)(
            segment.pcm_T.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt"
        )
        token = int(model.detect_language(features.input_features)[0])
        if segment.language is None:
            assert row.language == SPECIALS[token - len(WORDS)][2:-2] and 1 / 3 <= row.language_probability <= 1
        else:
            assert row.language == "fr" and row.language_probability is None


def test_a_distilled_decoder_writes_what_generate_writes_with_times(tmp_path: Path) -> None:
    """distil-large-v3: 32 layers hear, two write, and the alignment heads are those of the 32 that its teacher had, over
    which transformers stumbles."""
    folder = save_multilingual(tmp_path, encoder_layers=5, alignment_heads=[[7, 0], [25, 6]])
    batch = segments(["de", "en"])
    model = load(folder, max_new_tokens=40)
    heard = model.decode(batch)
    for row, segment in zip(heard, batch, strict=True):
        assert row.tokens == hf_generate(folder, segment.pcm_T, language=segment.language, task="transcribe")
    for text, segment in zip(model.transcripts(batch, heard), batch, strict=True):
        assert text.words and all(0 <= word.start <= word.stop <= len(segment.pcm_T) for word in text.words)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_logits_that_are_not_finite_are_no_text(multilingual: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(multilingual, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    name = f"model.{part}.layers.1.fc1.weight"
    weights[name] = torch.full_like(weights[name], 1e30)
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="not finite, first at the decoder's logits"):
        load(tmp_path / "m").decode(segments(["de", "en"]))


def test_the_language_option_overrides_what_rows_say(multilingual: Path) -> None:
    assert {row.language for row in load(multilingual, language="de").decode(segments([None, "en"]))} == {"de"}


def test_languages_are_looked_for_among_those_allowed(multilingual: Path) -> None:
    batch = segments([None, None, "fr", None])
    free = [row.language for row in load(multilingual).decode(batch)]
    for allowed in ("de,fr", "en", "en, de, fr"):
        heard = load(multilingual, languages=allowed).decode(batch)
        assert {row.language for row in heard if row.language_probability is not None} <= set(
            allowed.replace(" ", "").split(",")
        )
        assert heard[2].language == "fr", "what the manifest says stands"
    assert [row.language for row in heard] == free


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"languages": "en,xx"}, "knows de, en, fr"),
        ({"language": "xx"}, "knows de, en, fr"),
        ({"task": "translate", "language": "zz"}, "knows"),
    ],
)
def test_unknown_languages_are_told_before_anything_starts(
    multilingual: Path, options: dict[str, Any], words: str
) -> None:
    checkpoint = find_checkpoint(ModelConfig(model=str(multilingual)), {})
    with pytest.raises(ModelError, match=words):
        check_options(checkpoint, "m", TranscriptConfig(**options))


def test_pretrained_models_without_a_ctc_head_are_named(tmp_path: Path) -> None:
    folder = save_ctc_checkpoint(tmp_path / "m", "wav2vec2-group")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "architectures": ["Wav2Vec2ForPreTraining"]}))
    with pytest.raises(ModelError, match="without CTC head"):
        check_options(find_checkpoint(ModelConfig(model=str(folder)), {}), "m", TranscriptConfig())
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="is not read here"):
        find_checkpoint(ModelConfig(model=str(folder)), {})


def test_the_fingerprint_is_of_the_weights_and_not_of_the_path(tmp_path: Path) -> None:
    one, two, other = (
        save_ctc_checkpoint(tmp_path / name, "hubert-group", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    file_hashes = [
        checkpoint_fingerprint(find_checkpoint(ModelConfig(model=str(folder)), {})) for folder in (one, two, other)
    ]
    assert file_hashes[0] == file_hashes[1] != file_hashes[2]


def write_ct2(path: Path, arrays: dict[str, Any], aliases: dict[str, str]) -> None:
    """A CTranslate2 model file, version 6."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    codes = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}
    for name, array in arrays.items():
        content += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        content += struct.pack("<BI", codes[array.dtype], array.nbytes) + array.tobytes()
    content += struct.pack("<I", len(aliases)) + b"".join(text(a) + text(b) for a, b in aliases.items())
    path.write_bytes(content)


def test_ctranslate2_arrays_come_back_also_quantised_ones(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    scale = (127 / np.abs(weight).max(1)).astype(np.float32)
    quantised = np.rint(weight * scale[:, None]).astype(np.int8)
    write_ct2(
        tmp_path / "m.bin", {"a/weight": quantised, "a/weight_scale": scale, "b": weight.astype(np.float16)}, {"c": "b"}
    )
    arrays = ctranslate2.read_arrays(tmp_path / "m.bin")
    assert set(arrays) == {"a/weight", "b", "c"}
    assert np.abs(arrays["a/weight"] - weight).max() < 0.6 / scale.min() and np.abs(arrays["c"] - weight).max() < 2e-3


@pytest.mark.parametrize(
    "content", [b"", b"\x06\0\0\0", b"\x05\0\0\0\x02\0x\0\0\0\0\0\0\0\0\0", b"hello world, this is no model"]
)
def test_broken_ctranslate2_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ModelError):
        ctranslate2.read_arrays(tmp_path / "model.bin")


def test_real_ctranslate2_weights_fill_every_parameter(whisper: Path) -> None:
    model, _ = transformers_parts(whisper)
    arrays = ctranslate2.read_arrays(whisper / "model.bin")
    layer = model.model.decoder.layers[3].self_attn
    fused = np.concatenate([p.weight.detach().numpy() for p in (layer.q_proj, layer.k_proj, layer.v_proj)])
    assert np.array_equal(fused, arrays["decoder/layer_3/self_attention/linear_0/weight"].astype(np.float32))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_whisper_is_found_and_checked_without_loading_torch(whisper: Path) -> None:
    """The driver of a run needs its facts only: loading torch took three seconds of every start."""
    script = (
        "import sys; from audiomill.config.stages import ModelConfig; from audiomill.config.text import TranscriptConfig\n"
        "from audiomill.models.checkpoint import check_options, find_checkpoint, shape_of\n"
        "found = find_checkpoint(ModelConfig(model=sys.argv[1]), {})\n"
        "check_options(found, 'm', TranscriptConfig(language='en')); shape_of(found)\n"
        "print(*({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(whisper)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
