"""Audio spectrogram transformers (AST) that classify sound, as transformers reads them."""

from __future__ import annotations

from audiomill.models.family import TAGS, Facts, Family, Late, always, of_type
from audiomill.models.task import Shape

_WINDOW_S = 10.24
_LONGEST_S = 10_800.0
BATCH_S = {"cpu": 82.0, "cuda": 480.0}


FAMILY = Family(
    name="ast_tags",
    checkpoints="audio spectrogram transformer (AST)",
    facts=Facts(
        examples=("MIT/ast-finetuned-audioset-10-10-0.4593",),
        offers="sound tags, for --tagger",
        exact="all windows have one length: tags are those of transformers alone (a test compares)",
        licence="BSD-3-Clause",
    ),
    recognises=of_type("audio-spectrogram-transformer"),
    gives=always(TAGS),
    shape=lambda path: Shape(width=0, num_layers=-1, hop=160),
    load=Late("audiomill.models.ast_tags.tagger:load_tagger"),
    whole_s=lambda settings: _LONGEST_S,
    batch_seconds=BATCH_S,
    precisions={"cpu": ("fp32",), "cuda": ("fp32",)},
)
