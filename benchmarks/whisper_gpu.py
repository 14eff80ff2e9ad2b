"""Whisper's engine on one GPU: the work of MLPerf Inference v5.1 "whisper", offline, with random weights.

1,633 windows with 23.5 s of speech in the mean, greedy, waveform in memory to tokens. Weights are random, so the number of
tokens is forced: 3.2 a second of speech. Beside it `generate` of transformers (static cache, compiled, its best batch), in
the same run. Needs torch and transformers only; on a CPU it checks its own logic with few windows and a small shape.

python -m benchmarks.whisper_gpu --shape large-v3
python -m benchmarks.whisper_gpu --shape tiny --windows 6 --device cpu
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from audiomill.audio.cutting.segment import Segment
from audiomill.models.frames.mel import LogMel
from audiomill.models.seq2seq.continuous_batching import decode
from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest, DecodeSlots, Search
from audiomill.models.seq2seq.generation import MAX_ROWS
from audiomill.models.seq2seq.hypothesis import DecodingOptions
from audiomill.models.seq2seq.memory import free_bytes, predicted_bytes, rows_that_fit, shapes_of
from audiomill.models.whisper.encode_decode import ENCODER_SECONDS, EncodeDecode, TaskOptions, weights_of
from audiomill.models.whisper.model import WINDOW_SAMPLES
from audiomill.models.whisper.tokens import WhisperTokens
from benchmarks.record import save

RATE, WINDOW_FRAMES = 16_000, 1_500
SHAPES = {
    "tiny": {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "heads": 6, "num_mel_bins": 80},
    "large-v3-turbo": {"d_model": 1280, "encoder_layers": 32, "decoder_layers": 4, "heads": 20, "num_mel_bins": 128},
    "large-v3": {"d_model": 1280, "encoder_layers": 32, "decoder_layers": 32, "heads": 20, "num_mel_bins": 128},
}
TOKENS_PER_SECOND, MEAN_SPEECH_S = 3.2, 23.5
BEST_MLPERF_H200 = 67.86
"""Samples a second and GPU of the best H200 entry (NOTICE: real weights and text; mlcommons results v5.1)."""
PROMPT = [50258, 50259, 50360, 50364]
TOKENS = WhisperTokens(
    size=51_866,
    start=50258,
    end=50257,
    transcribe=50360,
    translate=50359,
    no_speech=50363,
    no_timestamps=50364,
    first_timestamp=50365,
    languages={"en": 50259},
    suppress=(50257,),  # the end comes when the forced number of tokens is reached
    begin_suppress=(),
)


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A Whisper of this shape with random weights."""
    torch.manual_seed(0)
    sizes = dict(SHAPES[shape])
    heads = sizes.pop("heads")
    config = WhisperConfig(
        vocab_size=TOKENS.size,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * sizes["d_model"],
        decoder_ffn_dim=4 * sizes["d_model"],
        pad_token_id=TOKENS.end,
        bos_token_id=TOKENS.end,
        eos_token_id=TOKENS.end,
        decoder_start_token_id=TOKENS.start,
        **sizes,
    )
    with device:
        return WhisperForConditionalGeneration(config).to(dtype).eval()


def windows(count: int) -> tuple[list[Segment], list[int]]:
    """Noise of 10 to 30 s, 23.5 in the mean, and the number of tokens of each."""
    random = np.random.default_rng(0)
    seconds = 10 + 20 * random.beta(2.6, 1.25, count)
    pcm = random.integers(-3000, 3000, WINDOW_SAMPLES).astype(np.int16)
    segments = [Segment(pcm[: int(RATE * each)], 0, 0, (str(n), None), 0, "en") for n, each in enumerate(seconds)]
    return segments, [max(1, round(TOKENS_PER_SECOND * each)) for each in seconds]


class Phases:
    """Seconds by name; waits for the device around each, so totals with phases are slower than without."""

    def __init__(self, device: torch.device, is_on: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._is_on = device, is_on

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - began

    def _now(self) -> float:
        if self._is_on and self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Engine:
    """Ours, as pipeline/audiomill/models/whisper/model.py puts it together, with forced token counts."""

    def __init__(self, model: Any, precision: str, memory_fraction: float, is_fixed: bool) -> None:
        device = model.device
        self.weights, self.shapes = weights_of(model, precision), shapes_of(model)
        self.encoder_frames = ENCODER_SECONDS[device.type] * 50
        budget = memory_fraction * free_bytes(device)
        most = MAX_ROWS[device.type]
        self.num_rows = rows_that_fit(self.shapes, budget, WINDOW_FRAMES, self.encoder_frames, most)
        search = Search(tokens=TOKENS, timestamps=False, max_new_tokens=150)
        self.table = DecodeSlots(
            self.weights.decoder, search, self.num_rows, len(PROMPT), WINDOW_FRAMES if is_fixed else None
        )

    @torch.inference_mode()
    def run(self, segments: list[Segment], counts: list[int], phases: Phases) -> int:
        """Number of tokens that came out."""
        asked = TaskOptions(TOKENS, "transcribe", None, (), (), False, False)
        hearing = EncodeDecode(self.weights, asked, segments, [WINDOW_SAMPLES] * len(segments), DecodingOptions())
        lengths: list[int] = []

        def next_entry(most: int, frames: int | None) -> DecodeRequest | None:
            with phases("mel, encoder, keys and values"):
                entry = hearing.next_entry(most, frames)
            return entry and entry._replace(limits=[counts[hearing.row_of(name)] for name in entry.names])

        def done(name: int, decoded: DecodedTokens) -> None:
            assert len(decoded.tokens) == counts[hearing.row_of(name)], "every token that was asked for, and no more"
            lengths.append(len(decoded.tokens))

        with phases("all"):
            decode(self.table, next_entry, done)
        assert len(lengths) == len(segments), "every window once"
        return sum(lengths)


def generate_rate(model: Any, segments: list[Segment], counts: list[int], batch: int, compiled: bool) -> float:
    """Windows a second of transformers, sorted so that a batch's token counts are alike."""
    mel = LogMel(model.config.num_mel_bins, model.device)
    order = sorted(range(len(segments)), key=lambda row: counts[row])
    options = {"cache_implementation": "static"} if compiled else {}

    def run(rows: list[int]) -> None:
        pcm = np.zeros((batch, WINDOW_SAMPLES), np.int16)  # one shape, so that nothing is compiled twice
        for at, row in enumerate(rows):
            pcm[at, : len(segments[row].pcm_T)] = segments[row].pcm_T
        features = mel(torch.from_numpy(pcm).to(model.device).float() / 32768).to(model.dtype)
        length = counts[rows[-1]]
        model.generate(
            features,
            decoder_input_ids=torch.tensor([PROMPT] * batch, device=model.device),
            min_new_tokens=length,
            max_new_tokens=length,
            do_sample=False,
            num_beams=1,
            **options,
        )

    groups = [order[at : at + batch] for at in range(0, len(order), batch)]
    for group in (groups[0], groups[-1]):
        run(group)
    _wait(model.device)
    began = time.perf_counter()
    for group in groups:
        run(group)
    _wait(model.device)
    return len(segments) / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def machine_rates(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """TFLOP/s of a large product and GB/s of a large copy."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = _fastest(lambda: a @ b, device)
    big = torch.empty(size * size * 4, device=device, dtype=dtype)
    copy = _fastest(lambda: big.clone(), device)
    return {"tflops": 2e-12 * size**3 / product, "gbytes": 2e-9 * big.nbytes / copy}


def _fastest(run: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(10):
        _wait(device)
        began = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


def total_flops(shape: str, counts: list[int]) -> float:
    """Useful work: encoder, keys and values, and the decoder's tokens."""
    sizes = SHAPES[shape]
    width, frames = sizes["d_model"], WINDOW_FRAMES
    layer = 24 * width**2 * frames + 4 * frames**2 * width
    encoder = sizes["encoder_layers"] * layer + sizes["decoder_layers"] * 4 * width**2 * frames
    token = sizes["decoder_layers"] * (28 * width**2 + 4 * frames * width) + 2 * width * TOKENS.size
    return float(len(counts) * encoder + sum(counts) * token)


def main() -> None:
    """Prints and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="large-v3")
    parser.add_argument("--windows", type=int, default=1633)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory-fraction", type=float, default=0.8)
    parser.add_argument("--peer-batches", default="32,64,128", help="batch sizes of transformers; empty: without it")
    args = parser.parse_args()
    device = torch.device(args.device)
    is_cuda = device.type == "cuda"
    dtype, precision = (torch.bfloat16, "bf16") if is_cuda else (torch.float32, "fp32")
    model = random_model(args.shape, device, dtype)
    engine = Engine(model, precision, args.memory_fraction, is_fixed=True)
    segments, counts = windows(args.windows)
    speech_s = sum(len(each.pcm_T) for each in segments) / RATE
    engine.run(segments[: 2 * engine.num_rows], counts[: 2 * engine.num_rows], Phases(device, False))  # records graphs
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(args.repeat):
        _wait(device)
        began = time.perf_counter()
        num_tokens = engine.run(segments, counts, Phases(device, False))
        _wait(device)
        times.append(time.perf_counter() - began)
    took, rates = statistics.median(times), machine_rates(device, dtype)
    phases = Phases(device, True)
    engine.run(segments, counts, phases)
    rate, tflops = len(segments) / took, total_flops(args.shape, counts) / took / 1e12
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "shape": args.shape,
        "windows": len(segments),
        "mean_speech_s": round(speech_s / len(segments), 2),
        "tokens": num_tokens,
        "rows_at_a_time": engine.num_rows,
        "samples_per_s": round(rate, 2),
        "x_real_time": round(speech_s / took, 1),
        "tflops": round(tflops, 2),
        "share_of_matrix_rate": round(tflops / rates["tflops"], 3),
        "machine": {name: round(value, 2) for name, value in rates.items()},
        "seconds_by_phase": {name: round(value, 2) for name, value in phases.seconds.items()},
        "predicted_gb": round(
            predicted_bytes(engine.shapes, engine.num_rows, WINDOW_FRAMES, engine.encoder_frames) / 1e9, 2
        ),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if is_cuda else None,
    }
    del engine
    peers = {}
    for batch in (int(each) for each in args.peer_batches.split(",") if each):
        try:
            peers[str(batch)] = round(generate_rate(model, segments, counts, batch, is_cuda), 2)
        except torch.OutOfMemoryError:
            peers[str(batch)] = None
        print(f"transformers generate, batch {batch}: {peers[str(batch)]} samples/s", flush=True)
    result["transformers_samples_per_s"] = peers
    best = max((each for each in peers.values() if each), default=None)
    result["times_transformers"] = round(rate / best, 2) if best else None
    for name, value in result.items():
        print(f"{name:<28} {value}")
    if is_cuda and args.shape == "large-v3":
        print(
            f"best MLPerf v5.1 entry per H200: {BEST_MLPERF_H200} samples/s; ours {rate / BEST_MLPERF_H200:.2f} of it"
        )
    if is_cuda:
        save(f"whisper_gpu_{args.shape}", f"python -m benchmarks.whisper_gpu --shape {args.shape}", result)


if __name__ == "__main__":
    main()
