"""The protocol between models and stages: utterances, predictions, hypotheses and the n-best list.

B batch, T samples, F frames, D width, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.config.text import TranscriptConfig

MIXED = -1
"""In place of a hidden state's number: a weighted sum of several."""
CONV = -100
"""Stands for the normalised output of the convolutions where a layer's number is expected."""


class Utterance(NamedTuple):
    """What a model is given of one segment.

    `pcm_T`: int16 at 16 kHz, `left` and `right` samples of it context; `track`: recording and channel,
    `start`: first sample after the left context, on the recording's clock; `language`: code or None; `speech`: samples
    with voice activity inside, None where it was not measured; `vad_mask`: a byte for every 512 samples of `pcm_T`, 1 where there
    is voice activity, None where nobody asked; `wave_TK`: the same sound as float32 in the model's own form
    (see `audiomill.audio.forms`), for models that have one.
    """

    pcm_T: NDArray[np.int16]
    left: int
    right: int
    track: tuple[str, int | None]
    start: int
    language: str | None
    speech: int | None = None
    wave_TK: NDArray[np.float32] | None = None
    vad_mask: bytes | None = None


def stack_rows(batch: Sequence[Utterance], num_samples: int) -> NDArray[np.int16]:
    """pcm_BT of a batch, zeros behind each row up to `num_samples`."""
    pcm_BT = np.zeros((len(batch), num_samples), np.int16)
    for row, utterance in enumerate(batch):
        pcm_BT[row, : len(utterance.pcm_T)] = utterance.pcm_T
    return pcm_BT


class TimedText(NamedTuple):
    """Text between two samples, counted from the segment's start. `probability`: the model's; `confidence`: the
    probability of being right, where the model's is calibrated."""

    text: str
    start: int
    stop: int
    probability: float
    confidence: float | None = None


class Candidate(NamedTuple):
    """One of the best texts of a segment, with what its score is made of: natural logarithms, before they are weighted.

    `acoustic`: of the text given the audio; `lm`: of the words; `num_words`; `hotwords`: hits; `rescored`: by a causal
    language model, None without one; `score`: the weighted sum.
    """

    text: str
    acoustic: float
    lm: float
    num_words: int
    hotwords: int
    rescored: float | None
    score: float


class Transcript(NamedTuple):
    """What a model made of one segment. Log-probabilities are natural, per token; `confidence`: expected share of right
    words, None where it is not calibrated; `first_pass_text`: of the first attempt, where something else was kept."""

    text: str
    language: str | None
    language_probability: float | None
    avg_logprob: float | None
    no_speech_prob: float | None
    words: tuple[TimedText, ...] | None
    phrases: tuple[TimedText, ...] | None
    fallback_level: int = 0
    failed_checks: tuple[str, ...] | None = None
    confidence: float | None = None
    self_consistency: float | None = None
    nbest: tuple[Candidate, ...] | None = None
    first_pass_text: str | None = None


@dataclass(frozen=True, kw_only=True)
class VectorRequest:
    """One kind of embedding. `layer`: index of a hidden state, or MIXED: the sum of all, times their `weights`;
    `over_speech`: pooled over frames with voice activity; the rest: see `EmbeddingsConfig`."""

    layer: int
    pool: str = "none"
    stride: int = 1
    dtype: str = "fp32"
    l2_normalize: bool = False
    over_speech: bool = False
    weights: tuple[float, ...] = ()

    @property
    def hidden_states(self) -> list[int]:
        """Those that it is made of."""
        return [number for number, weight in enumerate(self.weights) if weight] if self.layer == MIXED else [self.layer]


@dataclass(frozen=True, kw_only=True)
class CodesRequest:
    """One kind of code. `source`: empty for the checkpoint's own quantizer, the checkpoint that has it, or the
    codebook's file; `layer`: hidden state that is quantised (None: by a quantizer); `num_entries`: of each codebook;
    `num_kept`: of the codebooks, the first so many."""

    name: str
    source: str
    layer: int | None
    num_codebooks: int
    num_entries: int
    num_kept: int
    deduplicate: bool = False


@dataclass(frozen=True, kw_only=True)
class DiarizationRequest:
    """Who speaks. `voices`: the model that makes vectors of voices, as every worker finds it; `splits`: segments are cut
    where the speaker changes in a pause."""

    voices: str
    splits: bool = False


@dataclass(frozen=True, kw_only=True)
class RequestedOutputs:
    """Everything that is wanted of one forward pass. `aligns`: when words were said that another model wrote; `beside`:
    which of the job's texts it writes, 2 for the second; 0: the first one, or none."""

    transcripts: TranscriptConfig | None = None
    vectors: tuple[VectorRequest, ...] = ()
    codes: tuple[CodesRequest, ...] = ()
    aligns: bool = False
    beside: int = 0
    turns: DiarizationRequest | None = None
    tags: int = 0

    @property
    def is_main(self) -> bool:
        """Whether its texts are those of the segments table."""
        return self.transcripts is not None and not self.beside

    @property
    def layers(self) -> set[int]:
        """Hidden states that must be captured."""
        vectors = {number for want in self.vectors for number in want.hidden_states}
        return vectors | {want.layer for want in self.codes if want.layer is not None}


class Vectors(NamedTuple):
    """`values_ND`: one vector a frame (or group of frames), or a single one when pooled; `scale_N`: for int8."""

    values_ND: NDArray[Any]
    scale_N: NDArray[np.float32] | None
    num_frames: int


class LocalSpeaker(NamedTuple):
    """Somebody who is heard in a window of a segment. `window`: first sample of it, on the segment's clock; `number`: of the
    speaker, which means nothing outside; `span`: (start, stop, mean probability), samples on the segment's clock; `alone`: samples that
    `vector_D` was made of, which is None where they are too few."""

    window: int
    number: int
    span: tuple[int, int, float]
    alone: int
    vector_D: NDArray[np.float32] | None


class Readout(NamedTuple):
    """What was read off the hidden states of one segment, in the order of the wants."""

    vectors: tuple[Vectors, ...] = ()
    codes: tuple[NDArray[np.uint16], ...] = ()  # codes_KF
    scales: tuple[float, ...] = ()  # loudness of a codec's chunks, where it has them
    local: tuple[LocalSpeaker, ...] = ()
    tags: tuple[tuple[str, float], ...] = ()


class Prediction(NamedTuple):
    """Everything a model gave for one utterance. `text` is None where no transcript was wanted."""

    text: Any = None
    readout: Readout = Readout()

    def numbers(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """What must agree but for rounding, each with the step of the type that it is stored in."""
        results = []
        if self.text is not None:
            probabilities = np.asarray(self.text.probabilities, np.float64)
            results.append((probabilities, np.zeros_like(probabilities)))
        for values_ND, scale_N, _ in self.readout.vectors:
            values = values_ND.astype(np.float64)
            if scale_N is not None:
                scale = scale_N[:, None].astype(np.float64)
                results.append((values * scale, np.broadcast_to(scale, values.shape)))
            else:
                is_half = values_ND.dtype == np.float16
                results.append((values, np.spacing(np.abs(values_ND)).astype(np.float64) if is_half else 0 * values))
        if self.readout.tags:
            likely = np.array([probability for _, probability in self.readout.tags])
            results.append((likely, np.full(len(likely), 1e-4)))
        voice_vectors = [each.vector_D.astype(np.float64) for each in self.readout.local if each.vector_D is not None]
        return results + [(vector, np.zeros_like(vector)) for vector in voice_vectors]

    def symbols(self) -> list[NDArray[Any]]:
        """What must be equal."""
        result = [] if self.text is None else [np.asarray(self.text.symbols)]
        edges = [np.array(each.span[:2]) for each in self.readout.local]
        return result + list(self.readout.codes) + edges


class Parity(NamedTuple):
    """Of a model here with transformers' own, on one utterance: relative distances (L2) of what the model is given and of
    what comes out. `note`: what was not compared, and why."""

    inputs: float = 0.0
    outputs: float = 0.0
    note: str = ""


class FallbackPolicy(Protocol):
    """How a model tries again what does not pass its own checks. Rungs count from 1."""

    @property
    def num_levels(self) -> int: ...

    def find_failed(
        self, utterances: Sequence[Utterance], answers: Sequence[Prediction], fallback_level: int
    ) -> list[int]:
        """Indices of the predictions to decode again at this level."""

    def smooth_language_id(self, utterances: Sequence[Utterance], answers: Sequence[Prediction]) -> list[Utterance]:
        """The utterances with the language that their recording agrees on, where it was detected; see `is_retold`."""

    def needs_redecoding(self, utterance: Utterance, answer: Prediction) -> bool:
        """Whether an utterance must be heard again, because it was taken for another language."""

    def padded_length(self, num_samples: int, fallback_level: int) -> int: ...

    def forward(self, batch: Sequence[Utterance], fallback_level: int) -> list[Prediction]: ...

    def choose_better(
        self, utterances: Sequence[Utterance], before: Sequence[Prediction], after: Sequence[Prediction]
    ) -> list[Prediction]:
        """The better of two answers to each utterance."""

    def replace_text(self, before: Prediction, after: Prediction) -> Prediction:
        """The second answer, with what only the first one knows."""

    def find_deletions(self, utterances: Sequence[Utterance], answers: Sequence[Prediction]) -> list[Any]:
        """Parts of utterances whose answers leave speech out, each with its `utterance` and the `row` of the answer."""

    def fill_deletions(
        self, parts: Sequence[Any], predictions: Sequence[Prediction], answers: Sequence[Prediction]
    ) -> list[Prediction]:
        """The answers, or what was found in such parts instead, where that says more."""

    def finalize(self, utterances: Sequence[Utterance], texts: Sequence[Any]) -> list[Any]:
        """Final texts, once no fallback level is left."""


class Aligner(Protocol):
    """How a model tells when words were said that it did not write itself."""

    def edges(
        self, utterances: Sequence[Utterance], texts: Sequence[Any], words: Sequence[Sequence[str]]
    ) -> list[list[tuple[int, int]] | None]:
        """Samples between which each word was said, counted from the segment's start; None where that cannot be told."""
        ...


OnProgress = Callable[[int, int], None]
"""Told how many more utterances, and samples of them, have an answer."""


class SpeechModel(Protocol):
    """A speech model behind one forward pass. `forward` sees one batch; `transcripts` sees a whole piece.

    `fallback`: None for models that answer once;
    `aligner`: None for models that tell no times of others' words. `pads_rows_alone`: rows of a batch keep their own padded
    lengths; `on_progress`: told as utterances are answered, None where nobody asks; `reports_progress`: the model tells it itself,
    row by row.
    """

    on_progress: OnProgress | None = None
    reports_progress: bool = False
    fallback: FallbackPolicy | None = None
    aligner: Aligner | None = None
    pads_rows_alone: bool = False

    def padded_length(self, num_samples: int) -> int:
        """Samples that an utterance of this length occupies in a batch."""
        ...

    def forward(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """One answer per utterance, in order."""
        ...

    def spare_memory(self) -> None:
        """Use half as much from now on, where something is kept between batches: one did not fit."""
        return

    def parity(self, utterance: Utterance) -> Parity:
        """What transformers' own processor and model make of an utterance alone, beside what this makes of it."""
        ...

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Any]) -> list[Transcript]:
        """One transcript per utterance, in order; asked for only where transcripts are wanted."""
        raise AssertionError("asked for texts of a model that writes none")
