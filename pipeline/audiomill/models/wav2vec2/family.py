"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio and wav2vec2-BERT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiomill.models.family import Facts
from audiomill.models.frames.frame_families import ALONE, OFFERS
from audiomill.models.frames.wav2vec2_families import relatives
from audiomill.text.normalize import Text


def _by_ctc(path: Path, config: Any, texts: Sequence[Text], device: Any) -> Any:
    from audiomill.models.wav2vec2.learner import load_ctc

    return load_ctc(path, config, texts, device)


def _by_contrast(path: Path, config: Any, texts: Sequence[Text], device: Any) -> Any:
    from audiomill.models.wav2vec2.pretrainer import load_pretrainer

    return load_pretrainer(path, config, device)


FAMILY = relatives(
    "wav2vec2",
    "wav2vec2, HuBERT, WavLM, data2vec-audio, wav2vec2-BERT",
    ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-bert"),
    Facts(
        examples=(
            "facebook/wav2vec2-base-960h",
            "facebook/mms-1b-all",
            "facebook/hubert-large-ls960-ft",
            "microsoft/wavlm-base-plus",
            "facebook/data2vec-audio-base-960h",
            "facebook/w2v-bert-2.0",
        ),
        offers=OFFERS + ", its own quantizer; can be trained",
        exact=ALONE,
        licence="Apache-2.0 or MIT; MMS: CC-BY-NC-4.0",
    ),
    lends_quantizer=True,
    learners={"ctc": _by_ctc, "pretrain": _by_contrast},
)
