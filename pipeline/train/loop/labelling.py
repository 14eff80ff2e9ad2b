"""How audio is transcribed in every round, by teachers and students."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from audiomill.config.run import EngineConfig
from audiomill.config.search import SearchConfig
from audiomill.config.stages import DecodeConfig, ModelConfig, PlanConfig, SegmentConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.family import BEAMS, POSTERIORS


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
    gives = find_checkpoint(dataclasses.replace(label.model, model=model), label.plan.storage_options).gives
    search = label.transcripts.decoder
    if POSTERIORS not in gives:
        search = dataclasses.replace(search, hotwords=None, lexicon=None, keep_posteriors=0)
    if BEAMS not in gives:
        search = dataclasses.replace(search, coverage_score=0.0)
    if POSTERIORS not in gives and BEAMS not in gives:
        search = SearchConfig(agreement=search.agreement)
    return dataclasses.replace(label, transcripts=dataclasses.replace(label.transcripts, decoder=search))
