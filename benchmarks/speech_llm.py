"""A projector between Whisper's frozen encoder and a small frozen language model, on digits of a speaker that it never heard.

    python -m benchmarks.speech_llm --digits FOLDER --model WHISPER

FOLDER holds the Free Spoken Digit Dataset as one tar a speaker. Five speakers train, in clips of one to four digits; the sixth is
the test set, one digit a clip. The language model has three layers and is trained here on text alone: to write clean what stands
drawled and disturbed before a newline. Beside it: Whisper's own texts, a CTC head on the same frames, and the same training
with the texts in random order.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.train import FinetuneConfig, TrainConfig, TrainOutputConfig
from audiomill.runs.job import run_job
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.wer import NO_ERRORS, score_pair
from audiomill.train.fit.finetune import train_model
from benchmarks.record import save
from benchmarks.self_training import recordings

RATE = 16_000
TEST_SPEAKER, DEV_SHARE = "theo", 0.1
NUM_TRAIN, NUM_TEST = 700, 200
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LM_UPDATES, LM_BATCH = 1500, 32


def wave_of(audio: bytes) -> NDArray[np.float32]:
    """waveform_T at 16 kHz."""
    wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
    return np.asarray(soxr.resample(wave, rate, RATE), np.float32)


def write_splits(found: dict[str, tuple[bytes, str]], root: Path, seed: int) -> None:
    """train/, dev/ and test/ under `root`, and shuffled/: train/ with the texts in another order."""
    random = np.random.default_rng(seed)
    by_speaker: dict[str, list[str]] = {}
    for name in sorted(found):
        by_speaker.setdefault(name.split("_")[1], []).append(name)
    test = [str(each) for each in random.permutation(by_speaker.pop(TEST_SPEAKER))[:NUM_TEST]]
    clips = [(wave_of(found[name][0]), found[name][1]) for name in test]
    _write(root / "test", clips, [text for _, text in clips])
    speakers, joined = sorted(by_speaker), []
    for number in range(NUM_TRAIN):
        names = random.choice(by_speaker[speakers[number % len(speakers)]], int(random.integers(1, 5)))
        gap = np.zeros(int(RATE * 0.1), np.float32)
        waves = [part for name in names for part in (wave_of(found[str(name)][0]), gap)]
        joined.append((np.concatenate(waves), " ".join(found[str(name)][1] for name in names)))
    num_dev = int(DEV_SHARE * NUM_TRAIN)
    _write(root / "dev", joined[:num_dev], [text for _, text in joined[:num_dev]])
    texts = [text for _, text in joined[num_dev:]]
    _write(root / "train", joined[num_dev:], texts)
    _write(root / "shuffled", joined[num_dev:], [texts[at] for at in random.permutation(len(texts))])


def _write(folder: Path, clips: Sequence[tuple[NDArray[np.float32], str]], texts: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, ((wave, _), text) in enumerate(zip(clips, texts, strict=True)):
        soundfile.write(folder / f"{number:04d}.wav", wave, RATE)
        (folder / f"{number:04d}.txt").write_text(text)


def save_tokenizer(folder: Path) -> int:
    """Words and letters; gives the size of the vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", "<pad>", "\n", *WORDS, *"abcdefghijklmnopqrstuvwxyz'"]
    tokenizer = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^ \n]+"), "removed", invert=True)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex("^"), " "), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return len(tokens)


def train_language_model(folder: Path, seed: int) -> float:
    """Text alone: drawled, disturbed words before a newline, clean ones behind it; gives the last loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = save_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=3, initializer_range=0.05,
    )  # fmt: skip
    model, random = LlamaForCausalLM(config), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    last = 0.0
    for update in range(LM_UPDATES):
        rows, labels = zip(*(_example(random, size) for _ in range(LM_BATCH)), strict=True)
        ids_BL = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=3)
        labels_BL = nn.utils.rnn.pad_sequence(list(labels), batch_first=True, padding_value=-100)
        loss = model(input_ids=ids_BL, attention_mask=(ids_BL != 3).long(), labels=labels_BL).loss
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (update + 1) / 100, 3 * (1 - update / LM_UPDATES))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = float(loss.detach())
    model.generation_config.eos_token_id = 2
    model.eval().save_pretrained(folder)
    return last


def _example(random: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels of one text."""
    words = random.integers(5, 5 + len(WORDS), int(random.integers(0, 6))).tolist()
    before: list[int] = random.integers(15, size, int(random.integers(0, 4))).tolist()
    for word in words:
        before += [word] * int(random.integers(1, 5))
        before += random.integers(15, size, int(random.integers(1, 4))).tolist()
    after = [*words, 2]
    return torch.tensor([*before, 4, *after]), torch.tensor([-100] * (len(before) + 1) + after)


def trained(root: Path, name: str, options: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The report of a training on a split, and its seconds."""
    started = time.monotonic()
    config = FinetuneConfig(
        inputs=(str(root / name),),
        train=build(TrainConfig, {"dev": str(root / "dev"), "batch_seconds": 60.0, "device": "cpu", **options}),
        output=TrainOutputConfig(output=str(root / f"trained-{name}"), quiet=True),
    )
    return train_model(config, Console(stderr=True)), time.monotonic() - started


def word_error_rate(root: Path, model: str, **options: Any) -> float:
    """Of a checkpoint on the test set."""
    output = root / f"texts-{abs(hash((model, *options.items()))):x}"
    values = {"inputs": (str(root / "test"),), "model": model, "segment": "none", "engine": "local", "quiet": True}
    config: Any = build(TranscribeConfig, {**values, "output": str(output), "overwrite": True, **options})
    run_job(config.job(), Console(quiet=True))
    errors = NO_ERRORS
    for row in ledger.tables(Place(str(output), {}), "recordings").to_pylist():
        errors += score_pair(row["reference"], row["text"], "en")[0]
    return errors.rate


def ctc_head(root: Path, checkpoint: Path, updates: int, seed: int) -> float:
    """Word error rate of one linear layer over words on the same frames, trained as long."""
    from audiomill.audio.cutting.segment import Segment
    from audiomill.config.stages import ModelConfig
    from audiomill.models.base import VectorRequest
    from audiomill.models.speech_llm.settings import ENCODER, settings_of_folder
    from audiomill.models.vectors.frozen_encoder import loaded_encoder

    settings = settings_of_folder(checkpoint)
    encoder = loaded_encoder(
        str(checkpoint / ENCODER),
        VectorRequest(layer=settings.layer, dtype="fp32"),
        ModelConfig(device="cpu", precision="fp32"),
        {},
    )
    frames: dict[str, list[Tensor]] = {}
    texts: dict[str, list[str]] = {}
    for split in ("train", "test"):
        paths = sorted((root / split).glob("*.wav"))
        pcms = [(soundfile.read(path, dtype="int16")[0]) for path in paths]
        heard = [encoder.frames([Segment(pcm, 0, 0, ("", None), 0, None)])[0].clone() for pcm in pcms]
        frames[split], texts[split] = heard, [path.with_suffix(".txt").read_text() for path in paths]
    torch.manual_seed(seed)
    head, random = nn.Linear(settings.encoder_width, 1 + len(WORDS)), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.0)
    labels = [[1 + WORDS.index(word) for word in text.split()] for text in texts["train"]]
    for _ in range(updates):
        picked = random.integers(0, len(labels), 32).tolist()
        logits = head(nn.utils.rnn.pad_sequence([frames["train"][at] for at in picked]))
        loss = nn.functional.ctc_loss(
            logits.log_softmax(-1),
            torch.tensor([token for at in picked for token in labels[at]]),
            torch.tensor([len(frames["train"][at]) for at in picked]),
            torch.tensor([len(labels[at]) for at in picked]),
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    errors = NO_ERRORS
    for heard, text in zip(frames["test"], texts["test"], strict=True):
        best = head(heard).argmax(-1).unique_consecutive().tolist()
        errors += score_pair(text, " ".join(WORDS[label - 1] for label in best if label), "en")[0]
    return errors.rate


def main() -> None:
    """Trains, compares, saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--model", required=True, help="Whisper, whose encoder is taken")
    parser.add_argument("--updates", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("speech-llm-benchmark"))
    arguments = parser.parse_args()
    root = arguments.work / f"seed-{arguments.seed}"
    write_splits(recordings(arguments.digits), root, arguments.seed)
    started = time.monotonic()
    lm_loss = train_language_model(root / "lm", arguments.seed)
    lm_s = time.monotonic() - started
    options = {
        "model": arguments.model, "lm": str(root / "lm"), "projector": True, "frame_stacking": 5, "max_updates": arguments.updates,
        "seed": arguments.seed, "lm_prompt": "<audio>\n", "projector_width": 256,
    }  # fmt: skip
    report, train_s = trained(root, "train", options)
    _, shuffled_s = trained(root, "shuffled", options)
    checkpoint = root / "trained-train" / "checkpoint"
    result = {
        "wer": {
            "projector": word_error_rate(root, str(checkpoint), fallback=False),
            "projector, texts shuffled in training": word_error_rate(
                root, str(root / "trained-shuffled" / "checkpoint"), fallback=False
            ),
            "ctc head on the same frames": ctc_head(root, checkpoint, arguments.updates, arguments.seed),
            "whisper itself": word_error_rate(root, arguments.model, language="en", word_times=False),
        },
        "best_dev_wer": report["best_dev_wer"],
        "seconds": {"language model": round(lm_s), "projector": round(train_s), "shuffled": round(shuffled_s)},
        "lm_loss": lm_loss,
        "updates": arguments.updates,
        "seed": arguments.seed,
    }
    for name, rate in result["wer"].items():
        print(f"{name:<40} {100 * rate:5.1f}%")
    print(result["seconds"], "dev", result["best_dev_wer"], "language model's loss", lm_loss)
    command = "python -m benchmarks.speech_llm --digits FOLDER --model WHISPER"
    save("speech_llm", f"{command} --seed {arguments.seed}", result)


if __name__ == "__main__":
    main()
