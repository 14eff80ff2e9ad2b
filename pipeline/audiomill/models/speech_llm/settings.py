"""What the config.json of a speech LLM says. No torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.errors import ModelError

SPEECH_LLM_TYPE = "audiomill_speech_llm"
AUDIO = "<audio>"
"""Stands in the prompt where the audio goes."""
DEFAULT_PROMPT = f"{AUDIO}\n"
"""Of language models without a chat template."""
DEFAULT_REQUEST = f"Transcribe the speech: {AUDIO}"
"""What a chat template is given."""
ENCODER, LM, ADAPTER = "encoder", "lm", "adapter"
"""Folders beside config.json that hold the weights of each, where they are kept here."""


@dataclass(frozen=True, kw_only=True)
class SpeechLlmSettings:
    """A speech LLM.

    Attributes:
        encoder: where its speech encoder is: `encoder` for the folder beside, else a hub id, folder or URL.
        encoder_fingerprint: of its weights.
        layer: hidden state of the encoder that the projector reads.
        encoder_width: values of a frame.
        hop: samples at 16 kHz from one frame to the next.
        lm, lm_fingerprint, lm_width: the same of the language model.
        stack: frames that become one step.
        hidden: width inside the projector.
        prompt: text around AUDIO.
        has_adapter: LoRA weights of the language model are in the folder `adapter`.
    """

    encoder: str
    encoder_fingerprint: str
    layer: int
    encoder_width: int
    hop: int
    lm: str
    lm_fingerprint: str
    lm_width: int
    stack: int
    hidden: int
    prompt: str
    has_adapter: bool = False

    @property
    def rates(self) -> tuple[float, float]:
        """Frames and steps a second."""
        frame_rate = MODEL_SAMPLE_RATE / self.hop
        return frame_rate, frame_rate / self.stack

    def save(self, folder: Path) -> None:
        """Writes config.json."""
        fields = {"model_type": SPEECH_LLM_TYPE, **dataclasses.asdict(self)}
        (folder / "config.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")


def settings_of_folder(folder: Path) -> SpeechLlmSettings:
    """Reads config.json.

    Raises:
        ModelError: a field is missing, of another kind, or the prompt has no place for audio.
    """
    place = folder / "config.json"
    try:
        result = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{place}: cannot be read ({error}); expected the config.json of a speech LLM") from error
    values: dict[str, Any] = {}
    for field in dataclasses.fields(SpeechLlmSettings):
        kind = {"str": str, "int": int, "bool": bool}[str(field.type)]
        value = result.get(field.name, field.default)
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            raise ModelError(f"{place}: {field.name}: expected {kind.__name__}, got {result.get(field.name)!r}")
        values[field.name] = value
    check_prompt(values["prompt"], str(place))
    if values["stack"] < 1 or values["hop"] < 1:
        raise ModelError(f"{place}: stack and hop: expected at least 1, got {values['stack']} and {values['hop']}")
    return SpeechLlmSettings(**values)


def check_prompt(prompt: str, where: str) -> None:
    """Raises ModelError where there is not exactly one place for audio."""
    if prompt.count(AUDIO) != 1:
        raise ModelError(
            f"{where}: the prompt {prompt!r} has {prompt.count(AUDIO)} places for audio; expected {AUDIO} in it once, such as {DEFAULT_REQUEST!r}"
        )
