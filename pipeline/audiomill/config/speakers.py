"""Who speaks: what is wanted, and which models tell. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.fields import Validated, option
from audiomill.errors import UsageError

NONE, AUTO, CHANNEL = "none", "auto", "channel"


@dataclass(frozen=True, kw_only=True)
class SpeakersConfig(Validated):
    """Who speaks."""

    COMMON = ("speakers", "num_speakers", "max_speakers")

    speakers: str = option(
        NONE,
        "auto: who speaks when, by voice: tables `turns` and `speakers`, and a speaker for every segment and word (audiomill[speakers]); "
        "channel: every channel is a speaker, with --channels split; none.",
        choices=(NONE, AUTO, CHANNEL),
        results=True,
    )
    num_speakers: int | None = option(
        None, "Speakers of each recording, where that is known.", otherwise="told by voice", results=True
    )
    max_speakers: int | None = option(None, "Most speakers of a recording.", otherwise="any number", results=True)
    clustering_threshold: float = option(
        0.48, "Mean cosine distance of voice vectors below which two voices are one speaker.", results=True
    )
    diarizer: str = option(
        "pyannote-segmentation-3.0",
        "Model that tells local speakers: the one that audiomill[speakers] brings, a folder or hub id of its kind, or Nemotron 3 Diarization.",
    )
    speaker_model: str = option(
        "campplus",
        "Model that makes vectors of voices: campplus (audiomill[speakers]), resemblyzer, or a folder of one.",
    )
    save_speaker_embeddings: bool = option(
        False,
        "Keep a vector of each speaker and turn, for `audiomill link-speakers`, which finds the same person in other recordings. Such vectors "
        "are biometric data (GDPR article 9, BIPA): keep them only where the law and the people allow it.",
        results=True,
    )

    def check(self) -> None:
        self.require_positive("num_speakers", "max_speakers")
        if not 0 < self.clustering_threshold < 2:
            raise UsageError(
                f"--clustering-threshold {self.clustering_threshold:g}: expected a cosine distance between 0 and 2"
            )
        if self.num_speakers is not None and self.max_speakers is not None:
            raise UsageError("--num-speakers and --max-speakers exclude each other: drop one of them")
        if self.speakers != AUTO:
            for name in ("num_speakers", "max_speakers", "save_speaker_embeddings"):
                if getattr(self, name):
                    raise UsageError(f"--{name.replace('_', '-')} is for voices: add --speakers auto, or leave it out")
