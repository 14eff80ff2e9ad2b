"""Codecs beside transformers, one by one and in its padded batches: same random weights, same real clips, alternating runs.

Layouts as on the hub (EnCodec of 24 kHz, DAC of 44.1 kHz, Mimi). How many codes differ from transformers at batch size 1 stands
beside the speed. Then one job with six outputs of four models behind one decode, beside the same outputs one by one. Needs
torch and transformers, no Ray.

    python -m benchmarks.codecs shared/data/real --total 60
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
from rich.console import Console
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    DacConfig,
    DacFeatureExtractor,
    DacModel,
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

from audiomill.audio.cutting.segment import Segment
from audiomill.config.fields import build
from audiomill.config.jobs import JobConfig, ModelTask, RunConfig
from audiomill.config.representations import CodesConfig, EmbeddingsConfig
from audiomill.config.stages import ModelConfig
from audiomill.models.base import CodesRequest, RequestedOutputs
from audiomill.models.checkpoint import find_checkpoint, shape_of
from audiomill.models.load import load_speech_model
from audiomill.runs.job import run_job
from benchmarks.record import save
from tests.support.codec_checkpoints import save_encodec, save_mimi, save_xcodec
from tests.support.synth import save_ctc_checkpoint

PADDED_BATCH = 8
AUDIO = (".wav", ".flac", ".mp3", ".ogg")
Clips = Sequence[NDArray[np.float32]]
Codes = list[NDArray[Any]]
DAC_44 = {"downsampling_ratios": [2, 4, 8, 8], "sampling_rate": 44_100, "encoder_hidden_size": 64}


def saved(name: str, folder: Path) -> Path:
    """A checkpoint with the layout of the hub and random weights."""
    torch.manual_seed(0)
    place = folder / name
    if name == "dac":
        DacModel(DacConfig(**DAC_44)).save_pretrained(place)
        DacFeatureExtractor(sampling_rate=44_100, hop_length=512).save_pretrained(place)
        return place
    model = EncodecModel(EncodecConfig()) if name == "encodec" else MimiModel(MimiConfig())
    model.save_pretrained(place)
    EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(place)
    return place


def theirs(folder: Path, batch: int) -> Callable[[Clips], Codes]:
    """transformers, clips in the order given, zeros behind the shorter ones."""
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    more = {"bandwidth": model.config.target_bandwidths[-1]} if folder.name == "encodec" else {}
    hop = shape_of(find_checkpoint(ModelConfig(model=str(folder)), {})).hop

    @torch.inference_mode()
    def run(clips: Clips) -> Codes:
        found: Codes = []
        for at in range(0, len(clips), batch):
            chunk = list(clips[at : at + batch])
            given = extractor(chunk, sampling_rate=extractor.sampling_rate, return_tensors="pt", padding=True)
            codes = model.encode(given["input_values"], **more).audio_codes
            codes = codes[0] if codes.ndim == 4 else codes
            found += [np.asarray(row[:, : -(-len(clip) // hop)]) for row, clip in zip(codes, chunk, strict=True)]
        return found

    return run


def ours(folder: Path) -> Callable[[Clips], Codes]:
    config = ModelConfig(model=str(folder), device="cpu", precision="fp32")
    shape = shape_of(find_checkpoint(config, {}))
    count, entries = shape.quantizer or (0, 0)
    want = CodesRequest(name="q", source="", layer=None, num_codebooks=count, num_entries=entries, num_kept=count)
    model, rate = (
        load_speech_model(config, RequestedOutputs(codes=(want,))),
        1 if shape.form is None else shape.form.rate,
    )

    def run(clips: Clips) -> Codes:
        given = [
            Segment(np.zeros(len(clip) * 16_000 // rate, np.int16), 0, 0, ("r", None), 0, None, waves=(clip[:, None],))
            for clip in clips
        ]
        return [answer.readout.codes[0] for answer in model.forward(given)]

    return run


def compared(name: str, clips: Clips, rate: int, folder: Path, repeat: int) -> dict[str, dict[str, float]]:
    ways = {
        "transformers, one by one": theirs(folder, 1),
        f"transformers, padded batches of {PADDED_BATCH}": theirs(folder, PADDED_BATCH),
        "audiomill": ours(folder),
    }
    expected = ways["transformers, one by one"](clips)
    times: dict[str, list[float]] = {way: [] for way in ways}
    differing = {}
    for _ in range(repeat):
        for way, run in ways.items():
            began = time.perf_counter()
            found = run(clips)
            times[way].append(time.perf_counter() - began)
            pairs = list(zip(found, expected, strict=True))
            wrong = sum(int((a[:, : b.shape[1]] != b[:, : a.shape[1]]).sum()) for a, b in pairs)
            differing[way] = 100 * wrong / sum(b.size for _, b in pairs)
    audio_s = sum(map(len, clips)) / rate
    return {
        way: {
            "x_real_time": round(audio_s / statistics.median(times[way]), 2),
            "differing_pct": round(differing[way], 3),
        }
        for way in ways
    }


def one_job(source: Path, folder: Path) -> dict[str, float]:
    """Six outputs of four models in one job, and each model's outputs in a job of its own: seconds in the models."""
    wav2vec2 = save_ctc_checkpoint(folder / "wav2vec2", "wav2vec2-group", hidden_size=256, num_hidden_layers=6)
    vectors = (EmbeddingsConfig(layers="2,4"), EmbeddingsConfig(pool="mean"))
    tasks = [ModelTask(model=ModelConfig(model=str(wav2vec2)), tables={"embeddings": vectors})]
    small = {"num_filters": 16, "hidden_size": 64}
    for codec in (save_encodec(folder / "e", **small), save_mimi(folder / "m"), save_xcodec(folder / "x")):
        tasks.append(ModelTask(model=ModelConfig(model=str(codec)), tables={"codes": (CodesConfig(),)}))

    def seconds(name: str, chosen: Sequence[ModelTask]) -> float:
        values = {
            "inputs": (str(source),),
            "output": str(folder / name),
            "quiet": True,
            "engine": "local",
            "verify_segments": 0,
        }
        config: JobConfig = build(RunConfig, {**values, "report": False}).job(chosen)
        summary = run_job(config, Console(quiet=True))
        return float(summary["seconds"]["infer"])

    together = seconds("together", tasks)
    alone = [seconds(f"alone-{number}", [task]) for number, task in enumerate(tasks)]
    return {"one_job_s": together, "one_by_one_s": sum(alone), "ratio": round(together / sum(alone), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="real recordings")
    parser.add_argument("--max-seconds", type=float, default=17.0)
    parser.add_argument("--total", type=float, default=60.0, help="seconds of audio")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, rate in (("encodec", 24_000), ("mimi", 24_000), ("dac", 44_100)):
            clips: list[NDArray[np.float32]] = []
            for path in sorted(path for path in args.folder.iterdir() if path.suffix in AUDIO):
                wave, source_rate = soundfile.read(path, dtype="float32", always_2d=True)
                clip = soxr.resample(wave.mean(1), source_rate, rate)
                if len(clip) <= args.max_seconds * rate and sum(map(len, clips)) < args.total * rate:
                    clips.append(clip)
            result[name] = compared(name, clips, rate, saved(name, Path(work)), args.repeat)
            for way, row in result[name].items():
                print(f"{name:<8} {way:<34} " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        source = Path(work) / "clips"
        source.mkdir()
        for number, clip in enumerate(clips):
            soundfile.write(source / f"{number}.wav", clip, 44_100)
        result["six outputs of four models"] = one_job(source, Path(work))
        print(result["six outputs of four models"])
    save("codecs", shlex.join(["python", "-m", "benchmarks.codecs", *sys.argv[1:]]), result)


if __name__ == "__main__":
    main()
