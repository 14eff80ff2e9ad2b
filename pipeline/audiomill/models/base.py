"""The protocol between models and stages: segments, predictions, hypotheses and the n-best list.

B batch, T samples, F frames, D width, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig

MIXED = -1
"""In place of a hidden state's number: a weighted sum of several."""
CONV = -100
"""Stands for the normalised output of the convolutions where a layer's number is expected."""


def stack_rows(batch: Sequence[Segment], num_samples: int) -> NDArray[np.int16]:
    """pcm_BT of a batch, zeros behind each row up to `num_samples`."""
    pcm_BT = np.zeros((len(batch), num_samples), np.int16)
    for row, segment in enumerate(batch):
        pcm_BT[row, : len(segment.pcm_T)] = segment.pcm_T
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
    def has_text(self) -> bool:
        return self.transcripts is not None

    @property
    def text(self) -> TranscriptConfig:
        """Options of texts; where none is wanted those that ask for nothing more."""
        return self.transcripts or TranscriptConfig()

    @property
    def has_head(self) -> bool:
        """Whether letters are wanted of a CTC model: a text, or the times of another's."""
        return self.has_text or self.aligns

    @property
    def is_main(self) -> bool:
        """Whether its texts are those of the segments table."""
        return self.has_text and not self.beside

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
    """Everything a model gave for one segment. `text` is None where no transcript was wanted."""

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
    """Of a model here with transformers' own, on one segment: relative distances (L2) of what the model is given and of
    what comes out. `note`: what was not compared, and why."""

    inputs: float = 0.0
    outputs: float = 0.0
    note: str = ""


class Aligner(Protocol):
    """How a model tells when words were said that it did not write itself."""

    def edges(
        self, segments: Sequence[Segment], texts: Sequence[Any], words: Sequence[Sequence[str]]
    ) -> list[list[tuple[int, int]] | None]:
        """Samples between which each word was said, counted from the segment's start; None where that cannot be told."""
        ...


OnProgress = Callable[[int, int], None]
"""Takes how many more segments, and samples of them, have a prediction."""


def no_progress(num_segments: int, num_samples: int) -> None:
    """Where nobody asks how far it is."""


class SpeechModel(Protocol):
    """A speech model behind one forward pass. `forward` sees one batch; `transcripts` sees a whole piece.

    `fallback`: a `audiomill.models.seq2seq.decoding_fallback.FallbackPolicy`, None for models that decode once; `aligner`: None for models that give no times to others' words;
    `pads_rows_alone`: rows of a batch keep their own padded lengths.
    """

    fallback: object | None = None
    aligner: Aligner | None = None
    pads_rows_alone: bool = False

    def padded_length(self, num_samples: int) -> int:
        """Samples that a segment of this length occupies in a batch; by default rows are padded to the longest."""
        return num_samples

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """One prediction per segment, in order."""
        ...

    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """The same; models that finish row by row report each."""
        predictions = self.forward(batch)
        on_progress(len(batch), sum(len(segment.pcm_T) for segment in batch))
        return predictions

    def split_by_language(self, segment: Segment, prediction: Prediction) -> list[Segment]:
        """The parts of a segment without context, each in a language of its own; by default nobody looks."""
        return [segment]

    def spare_memory(self) -> None:
        """Use half as much from now on, where something is kept between batches: one did not fit."""
        return

    def parity(self, segment: Segment) -> Parity:
        """Distances from transformers' own processor and model, for a segment alone; by default there is none."""
        return Parity(note="input and forward pass: transformers has no such model")

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Any]) -> list[Transcript]:
        """One transcript per segment, in order; asked for only where transcripts are wanted."""
        raise AssertionError("asked for texts of a model that writes none")
