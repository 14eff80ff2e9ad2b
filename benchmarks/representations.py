"""Hidden states of a wav2vec2-base-sized model: exact batches beside Hugging Face alone and Hugging Face padded.

Same random weights, same clips, same order, alternating runs; the error of each against Hugging Face at batch size 1
stands beside its speed. Then what further outputs of the same forward pass cost. Needs torch and transformers, no Ray.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from audiomill.audio.bucketing import budget_batches
from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import CodesRequest, Prediction, RequestedOutputs, VectorRequest
from audiomill.models.frames.exact import with_plain_weights
from audiomill.models.load import load_speech_model
from benchmarks.record import save

LAYER, RATE, CLUSTERS, PADDED_BATCH = 9, 16_000, 500, 8


def clips(seconds: float, seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    """Noise that swells like syllables, of LibriSpeech-like lengths (1.5 to 17 s, mean near 8)."""
    random_, found, total = np.random.default_rng(seed), [], 0.0
    while total < seconds:
        length = float(np.clip(random_.lognormal(2.0, 0.55), 1.5, 17))
        at = np.arange(int(length * RATE)) / RATE
        envelope = 0.1 + np.abs(np.sin(2 * np.pi * random_.uniform(1.5, 4) * at))
        found.append((2500 * envelope * random_.normal(size=len(at))).astype(np.int16))
        total += length
    return found


def save_checkpoints(folder: Path, tiny: bool) -> tuple[Path, Path]:
    """Random wav2vec2-base: a CTC checkpoint, and a pretraining one with the same convolutions and a quantizer."""
    small = (
        {"num_hidden_layers": 10, "hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 128} if tiny else {}
    )
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(vocab_size=32, **small)
    ctc = transformers.Wav2Vec2ForCTC(config)
    ctc.save_pretrained(folder / "ctc")
    vocabulary = {
        token: n for n, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"])
    }
    (folder / "ctc" / "vocab.json").write_text(str(vocabulary).replace("'", '"').replace('"""', '"\'"'))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "ctc" / "vocab.json")).save_pretrained(folder / "ctc")
    pretraining = transformers.Wav2Vec2ForPreTraining(config)
    pretraining.wav2vec2.feature_extractor.load_state_dict(ctc.wav2vec2.feature_extractor.state_dict())
    pretraining.save_pretrained(folder / "pretraining")
    return folder / "ctc", folder / "pretraining"


def ours(
    model: Path, device: str, precision: str, batch_seconds: float, requested: RequestedOutputs
) -> Callable[[Sequence[Any]], list[Prediction]]:
    """Exact batches, sorted by length under a budget, answers in the order given."""
    config = ModelConfig(model=str(model), device=device, precision=precision)
    loaded = load_speech_model(config, requested)

    def run(pcms: Sequence[Any]) -> list[Prediction]:
        segments = [Segment(pcm, 0, 0, (str(n), None), 0, None) for n, pcm in enumerate(pcms)]
        answers: list[Any] = [None] * len(pcms)
        for rows in budget_batches(np.array([len(pcm) for pcm in pcms]), int(batch_seconds * RATE)):
            for row, answer in zip(rows.tolist(), loaded.forward([segments[i] for i in rows]), strict=True):
                answers[row] = answer
        if requested.transcripts is not None:
            loaded.transcripts(segments, [answer.text for answer in answers])
        return answers

    return run


def hugging_face(model: Path, device: str, dtype: torch.dtype, batch: int) -> Callable[[Sequence[Any]], list[Any]]:
    """transformers as its documentation says for this model: zero padding, no mask, hidden states of one layer."""
    loaded = transformers.Wav2Vec2Model.from_pretrained(model, dtype=dtype).to(device).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)

    @torch.inference_mode()
    def run(pcms: Sequence[Any]) -> list[Any]:
        found = []
        for at in range(0, len(pcms), batch):
            chunk = [pcm.astype(np.float32) / 32768 for pcm in pcms[at : at + batch]]
            inputs = extractor(chunk, sampling_rate=RATE, return_tensors="pt", padding=True).input_values.to(
                device, dtype
            )
            hidden = loaded(inputs, output_hidden_states=True).hidden_states[LAYER]
            lengths = loaded._get_feat_extract_output_lengths(torch.tensor([len(c) for c in chunk])).tolist()
            found += [row[:length].float().cpu().numpy() for row, length in zip(hidden, lengths, strict=True)]
        return found

    return run


def seconds_of(run: Callable[[Sequence[Any]], Any], pcms: Sequence[Any], device: str) -> tuple[float, Any]:
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    found = run(pcms)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def error(found: Sequence[Any], expected: Sequence[Any]) -> dict[str, float]:
    """Relative L2 over all clips, and of the worst clip."""
    each = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, expected, strict=True)]
    a, b = (np.concatenate([x.reshape(-1) for x in many]) for many in (found, expected))
    return {"relative_l2": float(np.linalg.norm(a - b) / np.linalg.norm(b)), "worst": max(each)}


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, best of five: what this machine can do."""
    size = 8192 if device != "cpu" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = min(seconds_of(lambda _: a @ a, [], device)[0] for _ in range(6))
    return 2 * size**3 / best


def flops_a_second_of_audio(model: Path) -> float:
    """Counted by torch over a 10 s clip."""
    from torch.utils.flop_counter import FlopCounterMode

    loaded = transformers.Wav2Vec2Model.from_pretrained(model, attn_implementation="eager").eval()
    with_plain_weights(loaded)
    loaded.encoder.layers = loaded.encoder.layers[:LAYER]  # what we compute: nothing above the wanted layer
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded(torch.randn(1, 10 * RATE))
    return counter.get_total_flops() / 10


def compared(args: argparse.Namespace, ctc: Path, pcms: Sequence[Any]) -> dict[str, Any]:
    """Speed and error of the three ways."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    requested = RequestedOutputs(vectors=(VectorRequest(layer=LAYER),))
    runs: dict[str, Callable[[Sequence[Any]], Any]] = {
        "transformers, one by one": hugging_face(ctc, args.device, dtype, 1),
        f"transformers, padded batches of {PADDED_BATCH}": hugging_face(ctc, args.device, dtype, PADDED_BATCH),
        "audiomill, exact batches": ours(ctc, args.device, args.precision, args.batch_seconds, requested),
    }
    expected = hugging_face(ctc, "cpu", torch.float32, 1)(pcms[: args.num_checked])
    times: dict[str, list[float]] = {name: [] for name in runs}
    errors = {}
    for run in runs.values():
        run(pcms[:4])
    for _ in range(args.repeat):
        for name, run in runs.items():
            seconds, found = seconds_of(run, pcms, args.device)
            times[name].append(seconds)
            vectors = [each.readout.vectors[0].values_ND if isinstance(each, Prediction) else each for each in found]
            errors[name] = error(vectors[: args.num_checked], expected)
    audio_s = sum(map(len, pcms)) / RATE
    first = next(iter(times))
    table = {
        name: {
            "x_real_time": round(audio_s / statistics.median(taken), 2),
            "ratio_to_one_by_one": round(statistics.median(a / b for a, b in zip(times[first], taken, strict=True)), 3),
            **{key: float(f"{value:.2e}") for key, value in errors[name].items()},
        }
        for name, taken in times.items()
    }
    print(f"\n{audio_s:.0f} s of audio in {len(pcms)} clips, {args.device}, {args.precision}, median of {args.repeat}")
    print(f"{'':<40} {'x real time':>11} {'to one by one':>14} {'error':>9} {'worst clip':>11}")
    for name, row in table.items():
        print(
            f"{name:<40} {row['x_real_time']:>11.1f} {row['ratio_to_one_by_one']:>14.2f} {row['relative_l2']:>9.1e} {row['worst']:>11.1e}"
        )
    flops, rate = flops_a_second_of_audio(ctc), matrix_rate(args.device, dtype)
    share = flops * table["audiomill, exact batches"]["x_real_time"] / rate
    print(
        f"{flops / 1e9:.1f} GFLOP a second of audio; this machine does {rate / 1e12:.3f} TFLOP/s in {args.precision}: {100 * share:.0f}% of it used"
    )
    return {
        "audio_s": audio_s,
        "ways": table,
        "gflop_per_audio_s": flops / 1e9,
        "matrix_tflops": rate / 1e12,
        "share": share,
    }


def outputs(
    args: argparse.Namespace, ctc: Path, pretraining: Path, pcms: Sequence[Any], folder: Path
) -> dict[str, Any]:
    """What more outputs of one forward pass cost, in the transcript's time."""
    from audiomill.models.base import CONV

    width = transformers.AutoConfig.from_pretrained(ctc).hidden_size
    np.save(folder / "km.npy", np.random.default_rng(0).normal(size=(CLUSTERS, width)).astype(np.float32))
    text, mean = TranscriptConfig(), VectorRequest(layer=LAYER, pool="mean", dtype="fp16")
    kmeans = CodesRequest(
        name="km", source=str(folder / "km.npy"), layer=LAYER, num_codebooks=1, num_entries=CLUSTERS, num_kept=1
    )
    quantizer = CodesRequest(
        name="quantizer", source=str(pretraining), layer=CONV, num_codebooks=2, num_entries=320, num_kept=2
    )
    kinds = {
        "transcript": RequestedOutputs(transcripts=text),
        "and mean of layer 9": RequestedOutputs(transcripts=text, vectors=(mean,)),
        "and k-means codes": RequestedOutputs(transcripts=text, vectors=(mean,), codes=(kmeans,)),
        "and quantizer codes": RequestedOutputs(transcripts=text, vectors=(mean,), codes=(kmeans, quantizer)),
    }
    runs = {
        name: ours(ctc, args.device, args.precision, args.batch_seconds, requested) for name, requested in kinds.items()
    }
    for run in runs.values():
        run(pcms[:4])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.repeat + 2):
        for name in list(runs) if number % 2 else list(runs)[::-1]:
            times[name].append(seconds_of(runs[name], pcms, args.device)[0])
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(times["transcript"], taken, strict=True)), 3)
        for name, taken in times.items()
    }
    print(
        "\ncost of more outputs of one forward pass, in the transcript's time: "
        + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items())
    )
    return ratios


def main() -> None:
    """Prints and saves the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--batch-seconds", type=float, default=480.0 if torch.cuda.is_available() else 10.0)
    parser.add_argument("--num-checked", type=int, default=24, help="clips whose error is computed against CPU fp32")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    pcms = clips(args.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ctc, pretraining = save_checkpoints(folder, args.tiny)
        found = {
            **compared(args, ctc, pcms),
            "outputs_in_transcripts_time": outputs(args, ctc, pretraining, pcms, folder),
        }
    if not args.tiny:
        suffix = "" if args.device == "cpu" else "_gpu"
        command = f"python -m benchmarks.representations --seconds {args.seconds:g} --repeat {args.repeat} --precision {args.precision} --batch-seconds {args.batch_seconds:g}"
        save(f"representations{suffix}", command, {"device": args.device, **found})


if __name__ == "__main__":
    main()
