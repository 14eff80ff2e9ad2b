"""The shape of a checkpoint, and one model of a run, settled: what workers load and what they ask of it. Plain values; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form
from audiomill.config.stages import ModelConfig
from audiomill.models.base import Parity, RequestedOutputs, SpeechModel
from audiomill.text.calibrate import Numbers

Hop = int | Fraction
"""Samples at 16 kHz from one frame to the next: a fraction where the model's own rate is another."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`hop`: samples from one frame to the next at the rate that the model hears (or for `frames_a_hop` of them), `text_hop`: at
    the CTC head; `num_layers`: of the encoder, so hidden states 0 to num_layers exist; `layer_names`: other names of layers;
    `other_widths`: of layers that differ from `width`; `quantizer`: (codebooks, entries of each) or None; `hops`: of hidden
    states that differ from `hop`; `is_pooled`: one vector a segment and no frames; `form`: what the model hears, None: 16 kHz, one channel, 16 bits."""

    width: int
    num_layers: int
    hop: int
    frames_a_hop: int = 1
    text_hop: int = 0
    layer_names: tuple[str, ...] = ()
    quantizer: tuple[int, int] | None = None
    other_widths: Mapping[int, int] = field(default_factory=dict)
    hops: Mapping[int, int] = field(default_factory=dict)
    form: Form | None = None
    is_pooled: bool = False

    @property
    def step(self) -> Hop:
        """From one frame to the next."""
        rate = MODEL_SAMPLE_RATE if self.form is None else self.form.rate
        fraction = Fraction(self.hop * MODEL_SAMPLE_RATE, rate * self.frames_a_hop)
        return fraction.numerator if fraction.denominator == 1 else fraction

    def width_of(self, layer: int) -> int:
        """Values of a vector of hidden state `layer`."""
        return self.other_widths.get(layer, self.width)


def receptive_field(config: Any) -> int:
    """Samples that one frame of the convolutions sees."""
    size, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        size += (kernel - 1) * step
        step *= stride
    return size


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """`label`: the model's name in the tables; `hop`: from one frame to the next, `text_hop`: at the CTC head; `hops`: in
    hidden states that have another clock; `form`: what the model hears, see `audiomill.models.task.Shape`; `second`: the
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


def wave_forms(specs: Iterable[TaskSpec]) -> list[Form]:
    """What models of a run hear other than 16 kHz, in the order of `Segment.waves`."""
    return sorted({spec.form for spec in specs if spec.form is not None})


@dataclass
class LoadedTask:
    """A task with its model on the device. `parity`: with transformers' own, once it was looked at; `second`: see there."""

    spec: TaskSpec
    model: SpeechModel
    parity: Parity | None = None
    second: LoadedTask | None = None
