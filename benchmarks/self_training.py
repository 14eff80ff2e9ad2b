"""Self-training on real digits: a small wav2vec2-CTC model, trained from nothing on few labels, teaches itself the rest.

    python -m benchmarks.self_training --digits FOLDER [--seeds 0,1,2] [--labelled 0.2] [--rounds 3]

FOLDER holds the Free Spoken Digit Dataset as one tar a speaker (wav and txt). Of its 2,700 training recordings a share is
labelled (a sixth of that decides when to stop and calibrates); the labels of the others are never read by the loop: they
lie beside the audio only so that the error of the selected labels can be told afterwards. The test split is the usual one
(recordings 0 to 4 of each speaker and digit). No language model. Afterwards a student is trained on the same selection
with its labels shuffled: it must not be promoted.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
from rich.console import Console

from audiomill.config.train import FinetuneConfig, TrainOutputConfig
from audiomill.text.bootstrap import paired_bootstrap
from audiomill.train.fit.finetune import train_model
from audiomill.train.loop.self_training import _transcribe, round_config, run_self_training
from audiomill.train.loop.verdicts import _edits, best_of, scored
from benchmarks.record import save

SHAPE = {
    "model_type": "wav2vec2",
    "architectures": ["Wav2Vec2ForCTC"],
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "conv_dim": [64, 64, 96, 96, 96, 96],
    "conv_kernel": [20, 3, 3, 3, 2, 2],
    "conv_stride": [10, 2, 2, 2, 2, 2],
    "num_feat_extract_layers": 6,
    "feat_extract_norm": "layer",
    "feat_extract_activation": "relu",
    "hidden_act": "relu",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.1,
    "layerdrop": 0.0,
}
"""0.7 million weights."""
DEV_SHARE = 1 / 6
NUM_TEST = 5


def recordings(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Audio and text by name, such as 3_theo_12."""
    found: dict[str, tuple[bytes, str]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            content = {
                member.name: io.BytesIO(shard.extractfile(member).read()).getvalue()
                for member in shard
                if member.isfile()
            }  # type: ignore[union-attr]
        for name in content:
            if name.endswith(".wav"):
                found[name[:-4]] = (content[name], content[name[:-4] + ".txt"].decode().strip())
    return found


def write_splits(found: dict[str, tuple[bytes, str]], root: Path, share: float, seed: int) -> dict[str, int]:
    """labelled/, dev/, unlabelled/ and test/ under `root`."""
    names = sorted(found)
    test = [name for name in names if int(name.split("_")[2]) < NUM_TEST]
    train = [name for name in names if int(name.split("_")[2]) >= NUM_TEST]
    order = [train[at] for at in np.random.default_rng(seed).permutation(len(train))]
    count = round(share * len(order))
    num_dev = round(DEV_SHARE * count)
    splits = {"dev": order[:num_dev], "labelled": order[num_dev:count], "unlabelled": order[count:], "test": test}
    for split, chosen in splits.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in chosen:
            audio, text = found[name]
            (root / split / f"{name}.wav").write_bytes(audio)
            (root / split / f"{name}.txt").write_text(text)
    return {split: len(chosen) for split, chosen in splits.items()}


def seconds_of(folder: Path) -> float:
    return sum(float(soundfile.info(path).duration) for path in sorted(folder.glob("*.wav")))


def loop_config(root: Path, rounds: int, seed: int, updates: int, seconds: float) -> Any:
    """The loop as a job.yaml would have it; `seconds`: of unlabelled audio, of which the best three quarters are taken."""
    (root / "shape").mkdir(parents=True, exist_ok=True)
    (root / "shape" / "config.json").write_text(json.dumps(SHAPE))
    values = {"output": str(root / "loop"), "quiet": True}
    inputs = {name: (str(root / name),) for name in ("labelled", "unlabelled", "dev", "test")}
    return round_config(
        {**values, **inputs},
        {
            "loop": {"rounds": rounds, "seed": seed},
            "label": {"segment": "none", "consistency_samples": 3, "engine": "local", "verify_segments": 0},
            "select": {"max_expected_wer": 0.1, "budget": f"{0.75 * seconds:.0f}s", "vocabulary": "calibrate"},
            "train": {
                "model": str(root / "shape"),
                "from_scratch": True,
                "max_updates": updates,
                "evaluate_every": 200,
                "batch_seconds": 8.0,
                "learning_rate": 1e-3,
                "mask_time_prob": 0.01,
            },
        },
    )


def shuffled_control(root: Path, config: Any, rounds: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """A student of the first selection with its labels in random order, against the teacher of that selection."""
    first = root / "loop" / "round-1"
    source = pq.read_table(first / "selection" / "selected.parquet")
    texts = source.column("text").to_pylist()
    order = np.random.default_rng(seed).permutation(len(texts))
    names = source.column_names
    table = source.set_column(names.index("text"), "text", [[texts[at] for at in order]])
    folder = root / "shuffled"
    (folder / "selection").mkdir(parents=True, exist_ok=True)
    pq.write_table(table.cast(source.schema), folder / "selection" / "selected.parquet")
    import dataclasses

    train = dataclasses.replace(config.train, pseudo=str(folder / "selection"), dev=",".join(config.dev), seed=seed + 1)
    output = TrainOutputConfig(output=str(folder / "training"), quiet=True)
    train_model(FinetuneConfig(inputs=config.labelled, train=train, output=output), Console(quiet=True))
    _transcribe(config.test, folder / "test", str(folder / "training" / "checkpoint"), config, Console(quiet=True))
    before, after = scored(root / "loop" / "round-0" / "test", {}), scored(folder / "test", {})
    ids = sorted(before)
    found = paired_bootstrap(
        [_edits(before[i]) for i in ids], [_edits(after[i]) for i in ids], [after[i].num_reference for i in ids]
    )
    return {
        "wer": found.after,
        "teacher_wer": found.before,
        "probability": found.probability,
        "promoted": found.is_better(config.loop.level),
    }


def told(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is kept of each round."""
    kept = ("round", "wer", "interval", "teacher_wer", "probability", "promoted")
    chosen = (
        "num_kept",
        "num_segments",
        "hours",
        "hours_kept",
        "expected_wer",
        "true_wer",
        "true_wer_of_all",
        "dropped",
    )
    return [
        {
            **{name: each[name] for name in kept},
            "selection": {name: each["selection"][name] for name in chosen if each["selection"]},
        }
        for each in rounds
    ]


def main() -> None:
    """Runs the seeds and saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("self-training-benchmark"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--labelled", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2000)
    arguments = parser.parse_args()
    found = recordings(arguments.digits)
    results = []
    for seed in map(int, arguments.seeds.split(",")):
        root, started = arguments.work / f"seed-{seed}", time.monotonic()
        sizes = write_splits(found, root, arguments.labelled, seed)
        config = loop_config(root, arguments.rounds, seed, arguments.updates, seconds_of(root / "unlabelled"))
        rounds = run_self_training(config, Console(stderr=True))
        control = shuffled_control(root, config, rounds, seed)
        first, best = next(each["wer"] for each in rounds if each["round"] == 0), best_of(rounds)["wer"]
        results.append(
            {
                "seed": seed,
                "clips": sizes,
                "rounds": told(rounds),
                "relative_cut": 1 - best / first,
                "shuffled": control,
                "minutes": (time.monotonic() - started) / 60,
            }
        )
        print(
            f"seed {seed}: labels alone {100 * first:.1f}%, best {100 * best:.1f}%, {100 * (1 - best / first):.0f}% less; shuffled: {control}"
        )
    mean_first = float(np.mean([each["rounds"][0]["wer"] for each in results]))
    mean_best = float(np.mean([each["rounds"][0]["wer"] * (1 - each["relative_cut"]) for each in results]))
    summary = {"mean_teacher_wer": mean_first, "mean_best_wer": mean_best, "relative_cut": 1 - mean_best / mean_first}
    print(
        f"mean of {len(results)} seeds: {100 * mean_first:.1f}% -> {100 * mean_best:.1f}%, {100 * summary['relative_cut']:.0f}% less"
    )
    command = f"python -m benchmarks.self_training --digits FOLDER --seeds {arguments.seeds} --labelled {arguments.labelled} --rounds {arguments.rounds}"
    save("self_training", command, {"labelled_share": arguments.labelled, "seeds": results, **summary})


if __name__ == "__main__":
    main()
