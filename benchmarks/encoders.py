"""CTC encoders and transducers beside transformers' own batches: same random weights, same real clips, alternating runs.

Layouts of about a hundred million parameters (a FastConformer of 17 layers, 512 wide; the others alike), so that an hour of a
small machine is enough. What differs from transformers at batch size 1 stands beside the speed. Needs torch and
transformers, no Ray.

    python -m benchmarks.encoders shared/data/real --max-seconds 17 --total 120
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForCTC

from audiomill.audio.bucketing import budget_batches, padding_waste_pct
from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import RequestedOutputs
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.load import load_speech_model
from audiomill.models.precision import cpu_features, settled_precision
from benchmarks.record import save
from tests.support.encoder_checkpoints import ENCODERS, save_transducer

RATE, PADDED_BATCH = 16_000, 8
AUDIO = (".wav", ".flac", ".mp3", ".ogg")
LARGE = {
    "hidden_size": 512,
    "num_hidden_layers": 17,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "initializer_range": 0.02,
}
MORE: dict[str, dict[str, Any]] = {
    "parakeet": {"subsampling_conv_channels": 256},
    "lasr": {"subsampling_conv_channels": 256, "conv_kernel_size": 32},
    "granite": {"context_size": 128, "max_position_embeddings": 512},
    "omniasr": {"conv_dim": (512,) * 7, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16},
    "tdt": {"subsampling_conv_channels": 256},
}
Clips = Sequence[NDArray[np.int16]]
Symbols = list[list[int]]


def saved(name: str, folder: Path) -> Path:
    save_one = save_transducer if name == "tdt" else ENCODERS[name]
    return save_one(folder / name, **LARGE, **MORE[name])


def ours(model: Path, precision: str) -> tuple[Callable[[Clips], Symbols], Callable[[Clips], float]]:
    """Exact batches under the default budget; and the padding that they have."""
    config = ModelConfig(model=str(model), device="cpu", precision=precision)
    requested = RequestedOutputs(transcripts=TranscriptConfig())
    loaded = load_speech_model(config, requested)
    budget = int(find_checkpoint(config, {}).family.batch_seconds["cpu"] * RATE)

    def batches(pcms: Clips) -> list[list[int]]:
        lengths = np.array([len(pcm) for pcm in pcms])
        return (
            [[n] for n in range(len(pcms))]
            if loaded.pads_rows_alone
            else [r.tolist() for r in budget_batches(lengths, budget)]
        )

    def run(pcms: Clips) -> Symbols:
        found: Symbols = [[] for _ in pcms]
        for rows in batches(pcms):
            given = [Segment(pcms[n], 0, 0, (str(n), None), 0, None) for n in rows]
            for n, answer in zip(rows, loaded.forward(given), strict=True):
                found[n] = answer.text.symbols.tolist()
        return found

    def waste(pcms: Clips) -> float:
        padded = sum(len(rows) * max(len(pcms[n]) for n in rows) for rows in batches(pcms))
        return padding_waste_pct(sum(map(len, pcms)), padded)

    return run, waste


def theirs(model: Path, batch: int) -> tuple[Callable[[Clips], Symbols], Callable[[Clips], float]]:
    """transformers with its own masks, clips in the order given."""
    is_transducer = model.name == "tdt"
    loaded = (AutoModel if is_transducer else AutoModelForCTC).from_pretrained(model).eval()
    extractor = AutoFeatureExtractor.from_pretrained(model)

    @torch.inference_mode()
    def run(pcms: Clips) -> Symbols:
        found: Symbols = []
        for at in range(0, len(pcms), batch):
            chunk = [pcm.astype(np.float32) / 32768 for pcm in pcms[at : at + batch]]
            inputs = extractor(chunk, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, padding=True)
            if is_transducer:
                found += _labels(loaded.generate(**inputs, max_new_tokens=20_000), loaded.config.blank_token_id)
                continue
            mask = inputs["padding_mask" if "padding_mask" in inputs else "attention_mask"]
            labels = loaded(**inputs).logits.argmax(-1)
            counts = loaded._get_output_attention_mask(mask).sum(-1).tolist()
            found += [row[:count].tolist() for row, count in zip(labels, counts, strict=True)]
        return found

    def waste(pcms: Clips) -> float:
        chunks = [pcms[at : at + batch] for at in range(0, len(pcms), batch)]
        return padding_waste_pct(sum(map(len, pcms)), sum(len(each) * max(map(len, each)) for each in chunks))

    return run, waste


def _labels(found: Any, blank: int) -> Symbols:
    """Tokens and the frames that they were written at, as `Labels.symbols` has them."""
    rows = []
    for tokens, durations in zip(found.sequences.tolist(), found.durations, strict=True):
        at = (durations.cumsum(0) - durations).tolist()
        kept = [(token, frame) for token, frame in list(zip(tokens, at, strict=False))[1:] if token != blank]
        rows.append([token for token, _ in kept] + [frame for _, frame in kept])
    return rows


def differing_pct(found: Symbols, expected: Symbols) -> float:
    """Labels that are not those of transformers alone, of each hundred."""
    pairs = [(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=False)]
    missing = sum(abs(len(one) - len(other)) for one, other in zip(found, expected, strict=True))
    return 100 * (sum(a != b for a, b in pairs) + missing) / max(1, len(pairs) + missing)


def compared(name: str, pcms: Clips, folder: Path, repeat: int, int8: str) -> dict[str, dict[str, float]]:
    model = saved(name, folder)
    ways = {
        "transformers, one by one": theirs(model, 1),
        f"transformers, batches of {PADDED_BATCH}": theirs(model, PADDED_BATCH),
        "audiomill, fp32": ours(model, "fp32"),
        f"audiomill, {int8}": ours(model, int8),
    }
    expected, times = ways["transformers, one by one"][0](pcms), {way: [] for way in ways}
    differing = {way: differing_pct(run(pcms[:2]), expected[:2]) for way, (run, _) in ways.items()}  # and warm
    for _ in range(repeat):
        for way, (run, _) in ways.items():
            began = time.perf_counter()
            found = run(pcms)
            times[way].append(time.perf_counter() - began)
            differing[way] = differing_pct(found, expected)
    audio_s = sum(map(len, pcms)) / RATE
    return {
        way: {
            "x_real_time": round(audio_s / statistics.median(times[way]), 2),
            "padding_waste_pct": round(waste(pcms), 1),
            "differing_pct": round(differing[way], 3),
        }
        for way, (_, waste) in ways.items()
    }


def clips_of(folder: Path, max_seconds: float, total_seconds: float) -> list[NDArray[np.int16]]:
    """Recordings of a folder up to a length, mixed to one channel at 16 kHz."""
    pcms: list[NDArray[np.int16]] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in AUDIO):
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = soxr.resample(waveform.mean(1), rate, RATE)
        if len(waveform) <= max_seconds * RATE and sum(map(len, pcms)) < total_seconds * RATE:
            pcms.append(np.rint(np.clip(waveform, -1, 1) * 32767).astype(np.int16))
    return pcms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="real recordings")
    parser.add_argument("--families", default="parakeet,lasr,omniasr,tdt")
    parser.add_argument("--max-seconds", type=float, default=17.0)
    parser.add_argument("--total", type=float, default=120.0, help="seconds of audio")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pcms = clips_of(args.folder, args.max_seconds, args.total)
    int8 = settled_precision("int8", "cpu", offers_int8=True, prefers_int8=False, features=cpu_features(), before=None)
    result: dict[str, Any] = {
        "clips": len(pcms),
        "audio_s": round(sum(map(len, pcms)) / RATE, 1),
        "cpu": sorted(cpu_features()),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in args.families.split(","):
            result[name] = compared(name, pcms, Path(folder), args.repeat, int8)
            for way, row in result[name].items():
                print(f"{name:<10} {way:<34} " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    save("encoders", shlex.join(["python", "-m", "benchmarks.encoders", *sys.argv[1:]]), result)


if __name__ == "__main__":
    main()
