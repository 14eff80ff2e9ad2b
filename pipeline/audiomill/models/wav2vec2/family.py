"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio and wav2vec2-BERT."""

from __future__ import annotations

from audiomill.models.family import Facts, Late, Objective
from audiomill.models.frames.frame_families import ALONE, OFFERS
from audiomill.models.frames.wav2vec2_families import relatives

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
    learners={
        "ctc": Objective(load=Late("audiomill.models.wav2vec2.learner:load_ctc")),
        "pretrain": Objective(load=Late("audiomill.models.wav2vec2.pretrainer:load_pretrainer"), needs_text=False),
    },
)
