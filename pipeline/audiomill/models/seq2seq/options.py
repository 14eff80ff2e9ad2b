"""Options that only some encoder-decoders know. No torch."""

from __future__ import annotations

from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError


def check_plain(model: str, text: TranscriptConfig) -> None:
    """Raises ModelError for what only Whisper reads."""
    asked = {"--prompt": text.prompt, "--suppress-numerals": text.suppress_numerals, "--pack": text.pack}
    for option, value in asked.items():
        if value:
            raise ModelError(f"{option}: {model} does not read it, only Whisper does; leave it out")
    if text.second_pass_model is not None and text.second_pass_threshold is None:
        raise ModelError(
            f"--second-pass-model: behind {model} it needs --second-pass-threshold; only Whisper's rungs end with another one"
        )
