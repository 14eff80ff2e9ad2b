"""Start times of words against those of a synthesiser that tells them: eSpeak NG speech, read by Whisper.

pip install espeakng-loader
python -m benchmarks.word_times
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import RequestedOutputs
from audiomill.models.load import load_speech_model
from audiomill_jobs.install.demo import whisper_folder
from benchmarks.record import save

RATE = 16_000
SYNCHRONOUS, WORD_EVENT, END_EVENT, UTF8 = 2, 1, 0, 1
SENTENCES = (
    "The old man walked slowly down the long road to the village.",
    "She opened the window and looked at the bright morning sun.",
    "We will meet again next Monday at the station in London.",
    "My brother bought three new books and a pair of brown shoes.",
    "The children played in the garden until it began to rain.",
    "He put the letter on the table and closed the door behind him.",
    "A large ship was waiting in the harbor for the storm to pass.",
    "Please bring me a glass of cold water and some fresh bread.",
    "The train to the city leaves every morning at seven o'clock.",
    "They built a small house near the river at the end of summer.",
    "Nobody knew the answer to the question that the teacher asked.",
    "The doctor told her to stay in bed and drink plenty of tea.",
)


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int64),
    )


class Spoken(NamedTuple):
    """16 kHz speech and its words with start seconds."""

    pcm_T: NDArray[np.int16]
    words: list[tuple[str, float]]


class Synthesiser:
    """eSpeak NG, with its word events."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self._callback = kind(self._heard)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, words_a_minute: int) -> Spoken:
        self._pieces: list[NDArray[np.int16]] = []
        self._starts: list[tuple[int, float]] = []
        self._library.espeak_SetVoiceByName(voice.encode())
        self._library.espeak_SetParameter(1, words_a_minute, 0)
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        waveform = np.concatenate(self._pieces).astype(np.float32) / 32768
        pcm = np.rint(soxr.resample(waveform, self._rate, RATE) * 32767).astype(np.int16)
        return Spoken(pcm, [(text[at - 1 :].split()[0], start) for at, start in self._starts])

    def _heard(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != END_EVENT:
            if events[index].type == WORD_EVENT:
                self._starts.append((events[index].text_position, events[index].audio_position / 1000))
            index += 1
        return 0


def plain(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())


def synthesised() -> list[Spoken]:
    """Every sentence by two voices at two speeds."""
    synthesiser = Synthesiser()
    pairs = (("en-us", 150), ("en-gb", 170))
    return [synthesiser.speak(text, voice, speed) for text in SENTENCES for voice, speed in pairs]


def main() -> None:
    """Prints and saves the errors of matched words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(whisper_folder()), help="Whisper folder")
    args = parser.parse_args()
    spoken = synthesised()
    config = ModelConfig(model=args.model, device="cpu", precision="fp32")
    results = {}
    for name, text in (
        ("short context", TranscriptConfig()),
        ("full window", TranscriptConfig(fallback=False)),
    ):
        model = load_speech_model(config, RequestedOutputs(transcripts=text))
        errors, num_words = [], sum(len(each.words) for each in spoken)
        for number, each in enumerate(spoken):
            segment = Segment(each.pcm_T, 0, 0, (str(number), None), 0, None)
            (transcript,) = model.transcripts([segment], [model.forward([segment])[0].text])
            ours = [(plain(word.text), word.start / RATE) for word in transcript.words or ()]
            theirs = [(plain(word), start) for word, start in each.words]
            matcher = difflib.SequenceMatcher(a=[w for w, _ in theirs], b=[w for w, _ in ours], autojunk=False)
            for block in matcher.get_matching_blocks():
                for offset in range(block.size):
                    errors.append(ours[block.b + offset][1] - theirs[block.a + offset][1])
        found = 1000 * np.array(errors)
        results[name] = {
            "num_words": num_words,
            "num_matched": len(errors),
            "bias_ms": round(float(np.median(found)), 1),
            "median_abs_ms": round(float(np.median(np.abs(found))), 1),
            "p95_abs_ms": round(float(np.percentile(np.abs(found), 95)), 1),
        }
        print(name, results[name])
    save("word_times", "python -m benchmarks.word_times", results)


if __name__ == "__main__":
    main()
