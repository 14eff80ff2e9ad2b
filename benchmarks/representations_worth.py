"""Which representation is worth what, with 10, 100 and 1,000 labelled segments: a CTC head on frozen frames.

    python -m benchmarks.representations_worth --digits FOLDER [--read FOLDER] --model WHISPER [--model ...]

Digits: the Free Spoken Digit Dataset as one tar a speaker; five speakers give the labels, and recordings of theirs that no head
was trained on and a sixth speaker are the tests (word errors). Read speech: audio beside `references.tsv` (columns file, language,
text), English clips up to 17 s; readers of the test clips are in no training (character errors: words need more text than this).
Where there are fewer segments than a size asks for, all of them are the last size. Heads are those of `audiomill finetune
--features`, letters: two recurrent layers on the digits, which give the control its context, a linear one on the longer read speech.
All representations have the same heads, updates and seeds; 95% intervals of a bootstrap over recordings. Each MODEL is a
checkpoint, CHECKPOINT@LAYER for one of its hidden states, or CHECKPOINT@mixed for their uniform sum; the spectrogram is the control.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.models.base import MIXED, VectorRequest
from audiomill.models.ctc.labels import best_path, form_of, label_vocabulary
from audiomill.models.device import usable_cores
from audiomill.models.feature_ctc.feature_head import FeatureHead
from audiomill.models.vectors.frozen_encoder import found_encoder, loaded_encoder
from audiomill.models.vectors.layer_weights import UNIFORM, read_layer_weights
from audiomill.text.normalize import Text
from audiomill.text.wer import score_pair
from benchmarks.real_speech import CLIP_S, read_corpus
from benchmarks.record import save
from benchmarks.self_training import recordings
from benchmarks.speech import int16, pcm_of
from benchmarks.speech_llm import RATE, TEST_SPEAKER, wave_of

SIZES, SEEDS, CONTROL = (10, 100, 1000), 2, "log-mel://"
NUM_TRAIN, NUM_TEST, FIRST_TRAINED = 1000, 200, 5
"""Of digits; recordings of a lower number are the usual test set."""
WARM_UP, MAX_NORM = 50, 1.0
RESAMPLES = 1000


class Spoken(NamedTuple):
    """A recording as int16 at 16 kHz, and what was said."""

    pcm_T: NDArray[np.int16]
    text: str


class Corpus(NamedTuple):
    """`tests` by name; `unit`: what errors are counted of; the rest: of the heads, `batch_s` of each update."""

    train: list[Spoken]
    tests: dict[str, list[Spoken]]
    unit: str
    head_width: int
    learning_rate: float
    updates: int
    batch_s: float

    @property
    def sizes(self) -> list[int]:
        """As many segments as there are, at most."""
        return sorted({min(size, len(self.train)) for size in SIZES})


class Head(NamedTuple):
    """Before and after its training. `form`: of its labels."""

    network: FeatureHead
    form: Any


def digits(folder: Path) -> Corpus:
    """Segments in random order."""
    every = recordings(folder)
    order = [sorted(every)[at] for at in np.random.default_rng(0).permutation(len(every))]
    known = [name for name in order if name.split("_")[1] != TEST_SPEAKER]
    train = [name for name in known if int(name.split("_")[2]) >= FIRST_TRAINED][:NUM_TRAIN]
    same = [name for name in known if int(name.split("_")[2]) < FIRST_TRAINED][:NUM_TEST]
    unheard = [name for name in order if name.split("_")[1] == TEST_SPEAKER][:NUM_TEST]

    def spoken(names: Sequence[str]) -> list[Spoken]:
        return [Spoken(int16(wave_of(every[name][0])), every[name][1]) for name in names]

    tests = {"same speakers": spoken(same), "unheard speaker": spoken(unheard)}
    return Corpus(spoken(train), tests, "words", 48, 3e-3, 1500, 10.0)


def read_speech(folder: Path) -> Corpus:
    """Every third source (the prefix of a file's name) is the test set."""
    clips = [clip for clip in read_corpus(folder, "en") if clip.seconds <= CLIP_S]
    sources = sorted({clip.path.name.split("-")[0] for clip in clips})
    train: list[Spoken] = []
    test: list[Spoken] = []
    for at in np.random.default_rng(0).permutation(len(clips)):
        clip = clips[at]
        is_test = sources.index(clip.path.name.split("-")[0]) % 3 == 0
        (test if is_test else train).append(Spoken(pcm_of(clip.path), clip.text))
    return Corpus(train, {"unheard readers": test}, "characters", 0, 1e-2, 2000, 20.0)


def frames_of(name: str, clips: Sequence[Spoken]) -> list[Tensor]:
    """frames_FE of each clip."""
    model, _, which = name.partition("@")
    checkpoint, shape = found_encoder(model, {})
    if which == "mixed":
        want = VectorRequest(layer=MIXED, weights=read_layer_weights(UNIFORM, shape, str(checkpoint), {}), dtype="fp32")
    else:
        want = VectorRequest(layer=int(which) if which else shape.num_layers, dtype="fp32")
    encoder = loaded_encoder(model, want, ModelConfig(device="cpu", precision="fp32"), {})
    return [encoder.frames([Segment(clip.pcm_T, 0, 0, ("", None), 0, None)])[0].clone() for clip in clips]


def new_head(width: int, hidden: int, texts: Sequence[str], seed: int) -> Head:
    """For the letters of some texts."""
    torch.manual_seed(seed)
    form = form_of(label_vocabulary([Text(text, None) for text in texts], False, False), False)
    return Head(FeatureHead(width, hidden, len(form.vocabulary.tokens)), form)


def train(head: Head, frames: Sequence[Tensor], texts: Sequence[str], batch: int, corpus: Corpus, seed: int) -> None:
    """`batch`: clips of each update."""
    network, labels = head.network.train(), [head.form.tokens(text, None) for text in texts]
    random, num_updates = np.random.default_rng(seed), corpus.updates
    optimizer = torch.optim.AdamW(network.parameters(), lr=corpus.learning_rate, weight_decay=0.0)
    for update in range(num_updates):
        for group in optimizer.param_groups:
            group["lr"] = corpus.learning_rate * min(1.0, (update + 1) / WARM_UP, 3 * (1 - update / num_updates))
        picked = random.integers(0, len(labels), batch).tolist()
        frames_B = torch.tensor([len(frames[at]) for at in picked])
        logits = network(nn.utils.rnn.pad_sequence([frames[at] for at in picked], batch_first=True), frames_B)
        loss = nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor([token for at in picked for token in labels[at]]),
            frames_B,
            torch.tensor([len(labels[at]) for at in picked]),
            zero_infinity=True,
        )
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
    network.eval()


@torch.inference_mode()
def errors_of(head: Head, frames: Sequence[Tensor], clips: Sequence[Spoken], unit: str) -> NDArray[np.float64]:
    """Errors and units of each recording."""
    found = []
    for each, clip in zip(frames, clips, strict=True):
        labels = head.network(each[None], torch.tensor([len(each)]))[0].argmax(-1).numpy()
        words, characters = score_pair(clip.text, best_path(labels, head.form.vocabulary), "en")
        score = words if unit == "words" else characters
        found.append((score.num_errors, score.num_reference))
    return np.asarray(found, np.float64)


def interval(counts_SN2: NDArray[np.float64]) -> list[float]:
    """Error rate [%] with its 95% interval. Recordings are drawn, each with what all seeds made of it: the seeds' errors on
    one recording are no news of others."""
    random, num = np.random.default_rng(0), counts_SN2.shape[1]
    drawn = [counts_SN2[:, random.integers(0, num, num)].sum((0, 1)) for _ in range(RESAMPLES)]
    low, high = np.percentile([errors / units for errors, units in drawn], [2.5, 97.5])
    errors, units = counts_SN2.sum((0, 1))
    return [round(100 * float(each), 1) for each in (errors / units, low, high)]


def worth(name: str, corpus: Corpus) -> dict[str, Any]:
    """A row of the table: for each size and test set the error rate with its interval."""
    began = time.monotonic()
    torch.set_num_threads(usable_cores())
    clips = [*corpus.train, *(clip for test in corpus.tests.values() for clip in test)]
    every = frames_of(name, clips)
    frames, rest = every[: len(corpus.train)], every[len(corpus.train) :]
    seconds = sum(len(clip.pcm_T) for clip in corpus.train) / RATE / len(corpus.train)
    batch = max(2, round(corpus.batch_s / seconds))
    row: dict[str, Any] = {"encoding_s": round(time.monotonic() - began), "width": frames[0].shape[1]}
    heads: dict[tuple[int, int], tuple[Head, list[int]]] = {}
    for size in corpus.sizes:
        for seed in range(SEEDS):
            chosen = np.random.default_rng(seed).permutation(len(corpus.train))[:size].tolist()
            heads[size, seed] = (
                new_head(row["width"], corpus.head_width, [corpus.train[at].text for at in chosen], seed),
                chosen,
            )

    def fit(key: tuple[int, int]) -> None:
        head, chosen = heads[key]
        train(head, [frames[at] for at in chosen], [corpus.train[at].text for at in chosen], batch, corpus, key[1])

    torch.set_num_threads(1)  # one head a core
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(fit, heads))
    for size in corpus.sizes:
        row[str(size)], at = {}, 0
        for kind, test in corpus.tests.items():
            own = rest[at : at + len(test)]
            counts = [errors_of(heads[size, seed][0], own, test, corpus.unit) for seed in range(SEEDS)]
            row[str(size)][kind] = interval(np.stack(counts))
            at += len(test)
    row["training_s"] = round(time.monotonic() - began) - row["encoding_s"]
    return row


def shown(name: str) -> str:
    """A checkpoint by the name of its run or folder, without where it lies."""
    model, at, which = name.partition("@")
    path = Path(model)
    if not path.exists():
        return name
    return f"{path.parent.name if path.name in ('checkpoint', '') else path.name}{at}{which}"


def main() -> None:
    """Prints the table and saves it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--model", action="append", required=True)
    arguments = parser.parse_args()
    corpora = {"digits": digits(arguments.digits)}
    if arguments.read is not None:
        corpora["read speech"] = read_speech(arguments.read)
    result: dict[str, Any] = {}
    for kind, corpus in corpora.items():
        print(f"{kind}: {len(corpus.train)} to train on, tests { ({n: len(t) for n, t in corpus.tests.items()}) }")
        result[kind] = {"unit": corpus.unit, "rows": {}}
        for name in (CONTROL, *arguments.model):
            row = result[kind]["rows"][shown(name)] = worth(name, corpus)
            for test in corpus.tests:
                found = [row[str(size)][test] for size in corpus.sizes]
                cells = "  ".join(f"{rate:5.1f} ({low:.1f} to {high:.1f})" for rate, low, high in found)
                print(f"  {shown(name):<28} {test:<16} {cells}   {row['encoding_s']}+{row['training_s']} s", flush=True)
    save(
        "representations_worth",
        "python -m benchmarks.representations_worth --digits FOLDER --read FOLDER --model WHISPER ...",
        result,
    )


if __name__ == "__main__":
    main()
