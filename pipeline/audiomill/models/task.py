"""One model of a run, settled: what workers load and what they ask of it. Plain values; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form
from audiomill.config.stages import ModelConfig
from audiomill.models.base import Parity, RequestedOutputs, SpeechModel
from audiomill.models.shape import Hop
from audiomill.text.calibrate import Numbers


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """`label`: the model's name in the tables; `hop`: from one frame to the next, `text_hop`: at the CTC head; `hops`: in
    hidden states that have another clock; `form`: what the model hears, see `audiomill.models.shape.Shape`; `second`: the
    model that writes texts again which are less sure than `second_pass_threshold`; `calibration`: see `audiomill.text.calibrate`."""

    label: str
    model: ModelConfig
    requested: RequestedOutputs
    hop: Hop
    batch_samples: int
    text_hop: int = 0
    hops: Mapping[int, int] = field(default_factory=dict)
    form: Form | None = None
    second: TaskSpec | None = None
    second_pass_threshold: float | None = None
    calibration: Numbers | None = None

    def hop_of(self, layer: int | None) -> Hop:
        """Samples from one frame of a hidden state to the next; None: of the checkpoint's own codes."""
        return self.hop if layer is None else self.hops.get(layer, self.hop)

    def frame_rate(self, layer: int | None) -> float:
        """Frames a second, of the same."""
        return float(MODEL_SAMPLE_RATE / self.hop_of(layer))


@dataclass
class LoadedTask:
    """A task with its model on the device. `parity`: with transformers' own, once it was looked at; `second`: see there."""

    spec: TaskSpec
    model: SpeechModel
    parity: Parity | None = None
    second: LoadedTask | None = None
