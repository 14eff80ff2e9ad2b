"""UniSpeech and UniSpeech-SAT: built like wav2vec 2.0, trained otherwise (arXiv:2101.07597, arXiv:2110.05752)."""

from __future__ import annotations

from audiomill.models.frames.relatives import relatives

FAMILY = relatives("unispeech", "UniSpeech, UniSpeech-SAT", ("unispeech", "unispeech-sat"))
