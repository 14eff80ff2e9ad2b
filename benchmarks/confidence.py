"""How far confidence can be trusted: speech in noise with known texts, read by Whisper tiny.en (and a second model).

Half of the clips (other voices or recordings) fit the weights of pipeline/audiomill/models/whisper/words.py; the other half tells how
reliable they are: expected calibration error, and what share of words is wrong among those kept above a confidence.

pip install espeakng-loader scikit-learn matplotlib
python -m benchmarks.confidence --speech FOLDER [--second-pass-model FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.models.whisper import words
from audiomill.models.whisper.words import Evidence, confidence_features, word_confidence
from audiomill.runs.job import run_job
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.normalize import normalizer
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save
from benchmarks.speech import RATE, short_clips
from benchmarks.word_times import synthesised

SNRS_DB = (None, 15, 8, 4, 0, -4)
SPEEDS = (0.9, 1.0, 1.15)
NUM_BINS = 10


class Word(NamedTuple):
    """A word that was written: what was known of it, and whether it is right."""

    evidence: Evidence
    is_right: bool
    segment: str


def noisy(waveform: NDArray[np.float32], snr_db: float | None, seed: int) -> NDArray[np.float32]:
    """With pink noise at a level below the speech."""
    if snr_db is None:
        return waveform
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(waveform)))
    pink = np.fft.irfft(white / np.sqrt(np.arange(1, len(white) + 1)), len(waveform))
    power = float((waveform**2).mean()) / float((pink**2).mean()) / 10 ** (snr_db / 10)
    return np.clip(waveform + pink * np.sqrt(power), -1, 1).astype(np.float32)


def write_noisy(folder: Path, clips: Sequence[tuple[NDArray[np.float32], str]]) -> dict[str, str]:
    """Every clip at every speed and level; texts by file name."""
    folder.mkdir(parents=True)
    texts = {}
    for number, (waveform, text) in enumerate(clips):
        for speed in SPEEDS:
            fast = soxr.resample(waveform, RATE * speed, RATE)
            for level, snr_db in enumerate(SNRS_DB):
                name = f"{number:03d}-{int(100 * speed)}-{level}.flac"
                soundfile.write(folder / name, noisy(fast, snr_db, number), RATE)
                texts[name] = text
    return texts


def words_of(corpus: Path, texts: dict[str, str], model: str, work: Path) -> Iterator[Word]:
    """Runs the corpus and compares each written word with what was said."""
    output = work / f"{corpus.name}-{abs(hash(model))}"
    values = {"inputs": (str(corpus),), "output": str(output), "model": model, "engine": "local", "quiet": True}
    # Everything is transcribed: voice activity would leave out what is hardest.
    run_job(build(TranscribeConfig, {**values, "segment": "fixed", "language": "en"}).job(), Console(quiet=True))
    names = {r["id"]: Path(r["source"]).name for r in ledger.tables(Place(str(output)), "recordings").to_pylist()}
    normalized = normalizer("en")
    for segment in ledger.tables(Place(str(output)), "segments").to_pylist():
        said, written = normalized(texts[names[segment["recording_id"]]]).split(), []
        for word in segment["words"]:
            written += [(each, word) for each in normalized(word["word"]).split()]
        if not written or not said:
            continue
        aligned = jiwer.process_words(" ".join(said), " ".join(each for each, _ in written)).alignments[0]
        right = {i for a in aligned if a.type == "equal" for i in range(a.hyp_start_idx, a.hyp_end_idx)}
        for index, (_, word) in enumerate(written):
            evidence = Evidence(word["probability"], segment["avg_logprob"], segment["fallback_level"])
            yield Word(evidence, index in right, segment["id"])


def fitted(words: Sequence[Word]) -> tuple[float, ...]:
    """Weights of the logistic model."""
    from sklearn.linear_model import LogisticRegression

    x = np.array([confidence_features(word.evidence) for word in words])
    model = LogisticRegression(fit_intercept=False, C=10.0).fit(x, [word.is_right for word in words])
    return tuple(round(float(each), 3) for each in model.coef_[0])


def reliability(sure: NDArray[Any], right: NDArray[Any]) -> dict[str, Any]:
    """Expected calibration error over bins of equal width, and the risk of what is kept above a confidence."""
    bins = np.minimum((sure * NUM_BINS).astype(int), NUM_BINS - 1)
    rows = [
        {
            "confidence": round(float(sure[bins == b].mean()), 3),
            "right": round(float(right[bins == b].mean()), 3),
            "num": int((bins == b).sum()),
        }
        for b in range(NUM_BINS)
        if (bins == b).any()
    ]
    ece = sum(row["num"] * abs(row["confidence"] - row["right"]) for row in rows) / len(sure)
    order = np.argsort(-sure, kind="stable")
    risk = {
        f"{share:.0%}": round(float(1 - right[order[: max(1, int(share * len(order)))]].mean()), 4)
        for share in (0.25, 0.5, 0.75, 0.9, 1.0)
    }
    return {"ece": round(float(ece), 4), "bins": rows, "risk_at_coverage": risk}


def by_segment(words: Sequence[Word], sure: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean confidence and share of right words of each segment."""
    names = sorted({word.segment for word in words})
    rows = [[i for i, word in enumerate(words) if word.segment == name] for name in names]
    right = np.array([word.is_right for word in words], float)
    return np.array([sure[row].mean() for row in rows]), np.array([right[row].mean() for row in rows])


def main() -> None:
    """Prints and saves the figures, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder of real recordings, see benchmarks/speech.py")
    parser.add_argument("--model", default=str(whisper_folder()))
    parser.add_argument("--second-pass-model", help="another Whisper, fitted and judged together with the first")
    args = parser.parse_args()
    clips = short_clips(args.speech)
    clips += [(each.pcm_T / np.float32(32768), " ".join(word for word, _ in each.words)) for each in synthesised()]
    with tempfile.TemporaryDirectory() as folder:
        work, found = Path(folder), {}
        for half, chosen in (("fit", clips[::2]), ("test", clips[1::2])):
            texts = write_noisy(work / half, chosen)
            models = [args.model, *([args.second_pass_model] if args.second_pass_model else [])]
            found[half] = [word for model in models for word in words_of(work / half, texts, model, work)]
    weights = fitted(found["fit"])
    print(f"weights fitted on {len(found['fit'])} words: {weights}; in use: {words.CONFIDENCE_WEIGHTS}")
    test = found["test"]
    right = np.array([word.is_right for word in test], float)
    raw = np.array([word.evidence.probability for word in test])
    sure = np.array([word_confidence(word.evidence) for word in test])
    result = {
        "num_words": len(test),
        "share_right": round(float(right.mean()), 4),
        "weights_fitted": weights,
        "words": reliability(sure, right),
        "words_by_raw_probability": reliability(raw, right),
        "segments": reliability(*by_segment(test, sure)),
    }
    for name in ("words_by_raw_probability", "words", "segments"):
        print(f"{name:<26} ECE {result[name]['ece']:.3f}   wrong among the surest: {result[name]['risk_at_coverage']}")
    _draw(result)
    save("confidence", "python -m benchmarks.confidence --speech FOLDER --second-pass-model FOLDER", result)


def _draw(result: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4))
    for name, label in (
        ("words_by_raw_probability", "probability"),
        ("words", "confidence of words"),
        ("segments", "of segments"),
    ):
        rows = result[name]["bins"]
        axes[0].plot(
            [row["confidence"] for row in rows],
            [row["right"] for row in rows],
            "o-",
            label=f"{label}, ECE {result[name]['ece']:.3f}",
        )
        risk = result[name]["risk_at_coverage"]
        axes[1].plot([float(share[:-1]) for share in risk], [100 * value for value in risk.values()], "o-", label=label)
    axes[0].plot([0, 1], [0, 1], ":", color="grey")
    axes[0].set(xlabel="said", ylabel="share that is right", title="Reliability on other voices")
    axes[1].set(xlabel="share kept, surest first (%)", ylabel="wrong (%)", title="Risk and coverage")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "results" / "words.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
