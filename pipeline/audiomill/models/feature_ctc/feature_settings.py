"""What the config.json of a recogniser on features says. No torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError

FEATURE_CTC_TYPE = "audiomill_feature_ctc"
ENCODER_FOLDER = "encoder"
"""Folder beside config.json that holds the encoder's weights, where they are kept here."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """A recogniser on features.

    Attributes:
        encoder: where its encoder is: `encoder` for the folder beside, else a hub id, URL, or a name without files.
        encoder_fingerprint: of its weights.
        layer: hidden state that is read, where there is no `mixture`.
        encoder_width: values of a frame.
        hop: samples at 16 kHz from one frame to the next.
        hidden: width of the recurrent layers between features and tokens; 0: there are none.
        vocab_size: tokens of the head.
        mixture: a weight for each hidden state.
    """

    encoder: str
    encoder_fingerprint: str
    layer: int
    encoder_width: int
    hop: int
    hidden: int
    vocab_size: int
    mixture: tuple[float, ...] = ()

    def save(self, folder: Path) -> None:
        """Writes config.json."""
        fields = {
            "model_type": FEATURE_CTC_TYPE,
            "architectures": ["FeatureForCTC"],
            "pad_token_id": 0,
            **dataclasses.asdict(self),
        }
        (folder / "config.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")


def feature_settings(folder: Path) -> FeatureSettings:
    """Reads config.json.

    Raises:
        ModelError: a field is missing or of another kind.
    """
    place = folder / "config.json"
    try:
        result: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{place}: cannot be read ({error}); expected the config.json of a recogniser on features"
        ) from error
    texts, numbers = ("encoder", "encoder_fingerprint"), ("layer", "encoder_width", "hop", "hidden", "vocab_size")
    for names, kind in ((texts, str), (numbers, int)):
        for name in names:
            if not isinstance(result.get(name), kind):
                raise ModelError(f"{place}: {name}: expected {kind.__name__}, got {result.get(name)!r}")
    mixture = result.get("mixture", [])
    if not isinstance(mixture, list) or not all(isinstance(each, (int, float)) for each in mixture):
        raise ModelError(f"{place}: mixture: expected a list of numbers, got {mixture!r}")
    values = {name: result[name] for name in (*texts, *numbers)}
    return FeatureSettings(**values, mixture=tuple(map(float, mixture)))
