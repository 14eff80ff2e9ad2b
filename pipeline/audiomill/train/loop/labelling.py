"""How audio is transcribed in every round, by teachers and students."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from audiomill.config.run import EngineConfig
from audiomill.config.stages import DecodeConfig, ModelConfig, PlanConfig, SegmentConfig
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.checkpoint import check_options, find_checkpoint
from audiomill.models.family import BEAMS, FUSION, POSTERIORS

OF_ONE_KIND = (
    "prompt",
    "suppress_numerals",
    "second_pass_model",
    "second_pass_threshold",
    "languages",
    "punctuation",
)
"""Options of texts that Whisper or Canary alone read."""


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How audio is transcribed in every round."""

    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()
    segment: SegmentConfig = SegmentConfig()
    engine: EngineConfig = EngineConfig()
    model: ModelConfig = ModelConfig()
    transcripts: TranscriptConfig = TranscriptConfig()


def read_by(model: str, label: Labelling) -> Labelling:
    """The labelling without what only a checkpoint of another kind reads: students need not be of their teacher's."""
    checkpoint = find_checkpoint(dataclasses.replace(label.model, model=model), label.plan.storage_options)
    has_frames, has_fusion = checkpoint.offers(POSTERIORS), checkpoint.offers(FUSION)
    search = label.transcripts.decoder
    if not has_frames:
        search = dataclasses.replace(search, hotwords=None, lexicon=None, save_posteriors=0)
    if not has_fusion:
        search = dataclasses.replace(search, coverage_score=0.0)
    if not has_frames and not has_fusion:
        beam_size = search.beam_size if checkpoint.offers(BEAMS) else 1
        search = SearchConfig(consistency_samples=search.consistency_samples, beam_size=beam_size)
    text = dataclasses.replace(label.transcripts, decoder=search)
    try:
        check_options(checkpoint, model, text)
    except ModelError:  # said of the teacher's kind: texts of this one have none of it
        plain = TranscriptConfig()
        text = dataclasses.replace(text, **{name: getattr(plain, name) for name in OF_ONE_KIND})
    return dataclasses.replace(label, transcripts=text)
