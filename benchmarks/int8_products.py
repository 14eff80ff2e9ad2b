"""Which of Whisper's products suffer from numbers of 8 bits: each kind alone in int8, everything else in fp32.

The decoder is fed its own fp32 text of each clip. Of each kind of product: by how much the logarithm of a token's
probability moves (mean), and the share of tokens that another one overtakes.

python -m benchmarks.int8_products FOLDER --model CHECKPOINT   # audio beside references.tsv
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.defaults import INT8, INT8_WEIGHT7
from audiomill.models.seq2seq.cross_attention_cache import cross_kv
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.whisper.encode_decode import WhisperWeights, weights_of
from audiomill.models.whisper.folder import tokenizer_of
from audiomill.models.whisper.model import context_samples
from audiomill.models.whisper.network.encoder import run_encoder
from audiomill.models.whisper.parts import whisper_parts
from audiomill.models.whisper.tokens import tokens_of
from benchmarks.real_speech import CLIP_S, read_corpus
from benchmarks.record import save

MOST_TOKENS = 60
ENCODER = ("qkv", "out", "fc1", "fc2")
DECODER = ("qkv", "out", "feed_forward")
CROSS = ("q", "kv", "out")


class Spoken(NamedTuple):
    """`mel_1MF` of a clip, and the tokens that fp32 hears in it, behind their prompt."""

    mel_1MF: Tensor
    tokens: list[int]


def mixed(fp32: WhisperWeights, coarse: WhisperWeights) -> Iterator[tuple[str, WhisperWeights]]:
    """The weights with one kind of product from `coarse`, by the kind's name."""
    yield "all", fp32._replace(encoder=coarse.encoder, decoder=coarse.decoder)
    yield "encoder", fp32._replace(encoder=coarse.encoder)
    yield "decoder", fp32._replace(decoder=coarse.decoder)
    yield "encoder conv2", fp32._replace(encoder=dataclasses.replace(fp32.encoder, conv2=coarse.encoder.conv2))
    for kind in ENCODER:
        yield f"encoder {kind}", fp32._replace(encoder=_layers(fp32.encoder, coarse.encoder, kind))
    for number in range(len(fp32.encoder.layers)):
        layers = list(fp32.encoder.layers)
        layers[number] = coarse.encoder.layers[number]
        yield f"encoder layer {number}", fp32._replace(encoder=dataclasses.replace(fp32.encoder, layers=layers))
    for kind in DECODER:
        yield f"decoder {kind}", fp32._replace(decoder=_layers(fp32.decoder, coarse.decoder, kind))
    for kind in CROSS:
        pairs = zip(fp32.decoder.layers, coarse.decoder.layers, strict=True)
        crosses = [(a, dataclasses.replace(a.cross, **{kind: getattr(b.cross, kind)})) for a, b in pairs]
        layers = [dataclasses.replace(layer, cross=cross) for layer, cross in crosses]
        yield f"decoder cross {kind}", fp32._replace(decoder=dataclasses.replace(fp32.decoder, layers=layers))
    vocabulary = dataclasses.replace(fp32.decoder, vocabulary=coarse.decoder.vocabulary)
    yield "vocabulary", fp32._replace(decoder=vocabulary)


def _layers(fp32: Any, coarse: Any, kind: str) -> Any:
    pairs = zip(fp32.layers, coarse.layers, strict=True)
    return dataclasses.replace(fp32, layers=[dataclasses.replace(a, **{kind: getattr(b, kind)}) for a, b in pairs])


@torch.inference_mode()
def logprobs(weights: WhisperWeights, mel_1MF: Tensor, tokens: list[int]) -> Tensor:
    """logprobs_LV behind each of the tokens."""
    hidden = run_encoder(weights.encoder, mel_1MF)[len(weights.encoder.layers)]
    state = KVCache(weights.decoder, 1, len(tokens))
    fed = state.admit(cross_kv(weights.decoder, hidden), torch.tensor([tokens]))
    return weights.decoder.logits(fed)[0].log_softmax(-1)


def spoken(weights: WhisperWeights, path: Path, prompt: list[int], end: int) -> Spoken:
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = soxr.resample(wave.mean(1), rate, MODEL_SAMPLE_RATE)
    padded = np.zeros(context_samples(len(wave), "short", "cpu"), np.float32)
    padded[: len(wave)] = wave
    mel, tokens = weights.mel(torch.from_numpy(padded)[None]), list(prompt)
    while len(tokens) < MOST_TOKENS:
        best = int(logprobs(weights, mel, tokens)[-1, : end + 1].argmax())
        if best == end:
            break
        tokens.append(best)
    return Spoken(mel, tokens)


def compared(
    fp32: WhisperWeights, coarse: WhisperWeights, clips: list[Spoken], first: int
) -> dict[str, dict[str, float]]:
    """Of each kind of product: `moved`, mean difference of log-probabilities; `overtaken_pct`."""
    expected = [logprobs(fp32, *clip)[first:] for clip in clips]
    found = {}
    for name, weights in mixed(fp32, coarse):
        moved, overtaken = [], []
        for clip, theirs_LV in zip(clips, expected, strict=True):
            ours_LV, best_L1 = logprobs(weights, *clip)[first:], theirs_LV.argmax(-1, keepdim=True)
            moved.append((ours_LV.gather(1, best_L1) - theirs_LV.gather(1, best_L1)).abs()[:, 0])
            overtaken.append((ours_LV.argmax(-1) != best_L1[:, 0]).float())
        found[name] = {
            "moved": round(float(torch.cat(moved).mean()), 5),
            "overtaken_pct": round(100 * float(torch.cat(overtaken).mean()), 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12)
    args = parser.parse_args()
    model, generation = whisper_parts(args.model)
    tokens = tokens_of(tokenizer_of(args.model), model.config.vocab_size, generation)
    prompt = tokens.prompt(tokens.languages.get("en"), "transcribe", False)
    fp32 = weights_of(model, "fp32")
    paths = [clip.path for clip in read_corpus(args.folder, "en") if clip.seconds <= CLIP_S][: args.clips]
    clips = [spoken(fp32, path, prompt, tokens.end) for path in paths]
    found = {p: compared(fp32, weights_of(model, p), clips, len(prompt)) for p in (INT8, INT8_WEIGHT7)}
    for name in found[INT8]:
        print(f"{name:20}", *(f"{p}: {each[name]}" for p, each in found.items()))
    result = {"clips": len(clips), "tokens": sum(len(clip.tokens) - len(prompt) for clip in clips), "formats": found}
    save("int8_products", f"python -m benchmarks.int8_products FOLDER --model {args.model.name}", result)


if __name__ == "__main__":
    main()
