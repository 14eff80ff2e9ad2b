"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio and wav2vec2-BERT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiomill.models.frames.relatives import relatives


def _by_ctc(path: Path, config: Any, texts: Sequence[str], device: Any) -> Any:
    from audiomill.models.wav2vec2.learner import load_ctc

    return load_ctc(path, config, texts, device)


def _by_contrast(path: Path, config: Any, texts: Sequence[str], device: Any) -> Any:
    from audiomill.models.wav2vec2.pretrainer import load_pretrainer

    return load_pretrainer(path, config, device)


FAMILY = relatives(
    "wav2vec2",
    "wav2vec2, HuBERT, WavLM, data2vec-audio, wav2vec2-BERT",
    ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-bert"),
    lends_quantizer=True,
    learners={"ctc": _by_ctc, "pretrain": _by_contrast},
)
