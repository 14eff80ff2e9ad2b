"""Audio, files and checkpoints whose answers are known because we made them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.audio.cutting.segmenter import SegmentSpec, spec_from_seconds
from audiomill.config.stages import SegmentConfig

RATE = 16_000


def tone(seconds: float, frequency: float = 440.0, rate: int = RATE) -> NDArray[np.float32]:
    """A sine at half scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(num_samples: int, seed: int = 0) -> NDArray[np.int16]:
    """White noise as int16."""
    return np.random.default_rng(seed).integers(-3000, 3000, num_samples).astype(np.int16)


def encode(waveform: NDArray[Any], rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Encoded bytes of a waveform (samples, or samples by channels)."""
    sink = io.BytesIO()
    soundfile.write(sink, waveform, rate, format=kind, subtype=subtype)
    return sink.getvalue()


def encode_with_ffmpeg(
    waveform: NDArray[np.float32], rate: int, container: str, codec: str, layout: str = "mono"
) -> bytes:
    """Encoded bytes in a container that libsndfile does not write."""
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.atleast_2d(waveform), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or None
        )
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    return sink.getvalue()


def tar_bytes(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as shard:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def cutting(kind: str, max_length_s: float = 30, context_s: float = 0, max_gap_s: float = 2.0) -> SegmentSpec:
    """Cutting rules with the usual thresholds."""
    return spec_from_seconds(SegmentConfig(max_gap_seconds=max_gap_s), kind, max_length_s, context_s)


CTC_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvkxjqz'"]
TINY = {
    "vocab_size": len(CTC_TOKENS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CTC_FAMILIES = {
    "wav2vec2-group": ("Wav2Vec2", {**TINY, "feat_extract_norm": "group"}),
    "wav2vec2-layer": (
        "Wav2Vec2",
        {**TINY, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ),
    "wav2vec2-adapter": (
        "Wav2Vec2",
        {**TINY, "feat_extract_norm": "layer", "add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 32},
    ),
    "hubert-group": ("Hubert", {**TINY, "feat_extract_norm": "group"}),
    "hubert-layer": ("Hubert", {**TINY, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "wavlm-group": ("WavLM", {**TINY, "feat_extract_norm": "group", "num_buckets": 32, "max_bucket_distance": 80}),
    "data2vec-audio": ("Data2VecAudio", {**TINY, "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}),
    "unispeech": ("UniSpeech", {**TINY, "feat_extract_norm": "group"}),
    "unispeech-sat": ("UniSpeechSat", {**TINY, "feat_extract_norm": "group"}),
    "wav2vec2-bert": (
        "Wav2Vec2Bert",
        {
            **{k: v for k, v in TINY.items() if "conv" not in k},
            "feature_projection_input_dim": 160,
            "conv_depthwise_kernel_size": 7,
            "add_adapter": True,
            "num_adapter_layers": 1,
            "output_hidden_size": 32,
        },
    ),
}


def save_ctc_checkpoint(folder: Path, family: str, seed: int = 0, **other: Any) -> Path:
    """A small CTC checkpoint with random weights, saved as the hub has them."""
    import torch
    import transformers

    name, settings = CTC_FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**settings, **other})
    model = getattr(transformers, f"{name}ForCTC")(config).eval()
    with torch.no_grad():  # random heads are nearly flat: sharper ones make words instead of one long letter
        model.lm_head.weight *= 40
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(CTC_TOKENS)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    tokenizer.save_pretrained(folder)
    if name == "Wav2Vec2Bert":
        transformers.SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, stride=2).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


def nothing_said(seconds: float, seed: int = 0) -> dict[str, NDArray[np.int16]]:
    """Sounds without a word, by name: silence, noises, hum, tones, clicks and music-like synthesis."""
    count, random = int(seconds * RATE), np.random.default_rng(seed)
    at = np.arange(count) / RATE
    white = random.normal(size=count)
    spectrum, frequencies = np.fft.rfft(white), np.fft.rfftfreq(count, 1 / RATE)
    clicks = np.zeros(count)
    clicks[random.integers(0, count, max(1, int(3 * seconds)))] = 1
    notes = np.array([220, 247, 262, 294, 330, 349, 392, 440])[random.integers(8, size=int(4 * seconds) + 1)]
    phase = 2 * np.pi * np.cumsum(notes[(4 * at).astype(int)]) / RATE
    decay = np.exp(-((2 * at) % 1) * 3)
    sounds = {
        "silence": (np.zeros(count), 0.0),
        "white": (white, 0.3),
        "faint": (white, 0.01),
        "pink": (np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 1)), count), 0.4),
        "brown": (np.fft.irfft(spectrum / np.maximum(frequencies, 1), count), 0.5),
        "hum": (np.sin(2 * np.pi * 50 * at) + 0.3 * np.sin(2 * np.pi * 150 * at), 0.3),
        "tone": (np.sin(2 * np.pi * 440 * at), 0.5),
        "clicks": (clicks, 0.9),
        "chord": (sum(np.sin(2 * np.pi * f * at) * decay for f in (220, 277, 330, 440)), 0.5),
        "melody": ((np.sin(phase) + 0.3 * np.sin(2 * phase)) * np.exp(-((4 * at) % 1) * 2), 0.5),
        "drums": (white * np.exp(-((2 * at) % 1) * 25), 0.8),
        "sweep": (np.sin(2 * np.pi * (100 * at + 1000 * at * at / seconds)), 0.4),
    }
    return {
        name: (32767 * peak * wave / max(1e-9, float(np.abs(wave).max()))).astype(np.int16)
        for name, (wave, peak) in sounds.items()
    }
