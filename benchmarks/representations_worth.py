"""Which representation is worth what, with 10, 100 and 1,000 labelled utterances: a linear CTC head on frozen frames.

    python -m benchmarks.representations_worth --digits FOLDER --model WHISPER [--model ...]

FOLDER holds the Free Spoken Digit Dataset as one tar a speaker. Five speakers give the labels, the sixth is the test set. Heads are
those of `audiomill finetune --features`, trained alike; word error rates with 95% intervals of a bootstrap over recordings.
Each MODEL is a checkpoint, or CHECKPOINT@LAYER for one of its hidden states; the spectrogram is always among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.config.stages import ModelConfig
from audiomill.models.base import Utterance, VectorWant
from audiomill.models.ctc.labels import best_path, form_of, vocabulary_of
from audiomill.models.feature_ctc.feature_head import FeatureHead
from audiomill.models.vectors.hearing_encoder import found_encoder, loaded_encoder
from audiomill.text.spoken_text import Text
from audiomill.text.wer import score_pair
from benchmarks.record import save
from benchmarks.self_training import recordings
from benchmarks.speech_llm import TEST_SPEAKER, wave_of

SIZES, SEEDS, NUM_TEST = (10, 100, 1000), 3, 200
UPDATES, BATCH, RATE = 600, 32, 3e-3
RESAMPLES = 1000


class Spoken(NamedTuple):
    """A recording as int16 at 16 kHz, and its word."""

    pcm_T: NDArray[np.int16]
    text: str


def splits(folder: Path) -> tuple[list[Spoken], list[Spoken]]:
    """As many as the largest size of five speakers, in random order, and the test recordings of the sixth."""
    every = recordings(folder)
    order = [sorted(every)[at] for at in np.random.default_rng(0).permutation(len(every))]
    test = [name for name in order if name.split("_")[1] == TEST_SPEAKER][:NUM_TEST]
    train = [name for name in order if name.split("_")[1] != TEST_SPEAKER][: max(SIZES)]
    return tuple(  # type: ignore[return-value]
        [
            Spoken(np.rint(np.clip(wave_of(every[name][0]), -1, 1) * 32767).astype(np.int16), every[name][1])
            for name in names
        ]
        for names in (train, test)
    )


def frames_of(name: str, clips: Sequence[Spoken]) -> tuple[list[Tensor], int]:
    """frames_FE of each clip, and their width."""
    model, _, number = name.partition("@")
    _, shape = found_encoder(model, {})
    layer = int(number) if number else shape.num_layers
    config = ModelConfig(device="cpu", precision="fp32")
    encoder = loaded_encoder(model, VectorWant(layer=layer, dtype="fp32"), int(shape.hop), config, {})
    found = [encoder.frames([Utterance(clip.pcm_T, 0, 0, ("", None), 0, None)])[0].clone() for clip in clips]
    return found, shape.width_of(layer)


def trained(frames: Sequence[Tensor], texts: Sequence[str], width: int, seed: int) -> tuple[FeatureHead, Any]:
    """A head, and the form of its labels."""
    torch.manual_seed(seed)
    form = form_of(vocabulary_of([Text(text, None) for text in texts], False, False), False)
    head, random = FeatureHead(width, 0, len(form.vocabulary.tokens)), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.0)
    labels = [form.tokens(text, None) for text in texts]
    for update in range(UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (update + 1) / 50, 3 * (1 - update / UPDATES))
        picked = random.integers(0, len(labels), BATCH).tolist()
        frames_B = torch.tensor([len(frames[at]) for at in picked])
        logits = head(nn.utils.rnn.pad_sequence([frames[at] for at in picked], batch_first=True), frames_B)
        loss = nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor([token for at in picked for token in labels[at]]),
            frames_B,
            torch.tensor([len(labels[at]) for at in picked]),
            zero_infinity=True,
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return head.eval(), form


@torch.inference_mode()
def errors_of(head: FeatureHead, form: Any, frames: Sequence[Tensor], texts: Sequence[str]) -> NDArray[np.float64]:
    """Word errors and words of each recording."""
    found = []
    for each, text in zip(frames, texts, strict=True):
        labels = head(each[None], torch.tensor([len(each)]))[0].argmax(-1).numpy()
        score = score_pair(text, best_path(labels, form.vocabulary), "en")[0]
        found.append((score.substitutions + score.deletions + score.insertions, score.num_reference))
    return np.asarray(found, np.float64)


def interval(counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """Word error rate with its 95% interval, over recordings."""
    random = np.random.default_rng(0)
    rates = []
    for _ in range(RESAMPLES):
        some = counts[random.integers(0, len(counts), len(counts))].sum(0)
        rates.append(some[0] / some[1])
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(counts[:, 0].sum() / counts[:, 1].sum()), float(low), float(high)


def main() -> None:
    """Prints the table and saves it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    arguments = parser.parse_args()
    train, test = splits(arguments.digits)
    result: dict[str, Any] = {}
    for name in ("log-mel://", *arguments.model):
        started = time.monotonic()
        frames, width = frames_of(name, [*train, *test])
        own = Path(name.partition("@")[0])
        folder = own.parent.name if own.name == "checkpoint" else own.name or own.parent.name
        shown = f"{folder}{'@' + name.partition('@')[2] if '@' in name else ''}" if own.exists() else name
        row: dict[str, Any] = {"encoding_s": round(time.monotonic() - started), "width": width}
        for size in SIZES:
            counts = []
            for seed in range(SEEDS):
                chosen = np.random.default_rng(seed).permutation(len(train))[:size].tolist()
                head, form = trained([frames[at] for at in chosen], [train[at].text for at in chosen], width, seed)
                counts.append(errors_of(head, form, frames[len(train) :], [clip.text for clip in test]))
            row[str(size)] = [round(100 * each, 1) for each in interval(np.concatenate(counts))]
        result[shown] = row
        cells = "  ".join(
            f"{row[str(size)][0]:5.1f} ({row[str(size)][1]:.1f} to {row[str(size)][2]:.1f})" for size in SIZES
        )
        print(f"{shown:<28} {cells}", flush=True)
    save(
        "representations_worth",
        "python -m benchmarks.representations_worth --digits FOLDER --model WHISPER ...",
        result,
    )


if __name__ == "__main__":
    main()
