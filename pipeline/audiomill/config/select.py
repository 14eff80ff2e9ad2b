"""Options of `audiomill select`. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from audiomill.config.defaults import REPEATING_RATIO, WINDOW_S
from audiomill.config.fields import Validated, option
from audiomill.config.stages import OutputPlace
from audiomill.errors import UsageError

BALANCE_KEYS = ("source", "speaker", "duration", "language", "text")
HOURS = re.compile(r"(\d+(?:\.\d+)?)\s*(h|m|min|s)?")
SECONDS = {None: 3600.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Validated):
    """Which transcripts become pseudo-labels. A rule at its default of none is off."""

    COMMON = (
        "min_confidence",
        "min_self_consistency",
        "where",
        "compare_with",
        "calibrate",
        "max_expected_wer",
        "budget",
        "held_out",
        "balance",
        "export_audio",
    )

    min_confidence: float | None = option(None, "Confidence of the segment, as the transcripts have it.", results=True)
    min_self_consistency: float | None = option(
        None,
        "Share of words that stay when the segment is heard again (needs transcribe --consistency-samples).",
        results=True,
    )
    compare_with: str | None = option(None, "Output of another model on the same audio, to compare texts with.")
    max_disagreement: float = option(0.3, "With --compare-with: word error rate between the two texts.", results=True)
    lm: str | None = option(None, "n-gram language model (KenLM binary or ARPA) that scores the texts.")
    min_lm_score: float | None = option(None, "With --lm: mean natural log-probability a word, e.g. -9.", results=True)
    calibrate: str | None = option(
        None,
        "Output of the same model on labelled audio: what is expected of a text is learnt from it (else it is the confidence).",
    )
    max_expected_wer: float | None = option(
        None, "Word error rate expected of all that is kept, e.g. 0.1: the best are taken while it holds.", results=True
    )
    max_segment_wer: float | None = option(None, "Word error rate expected of a single segment.", results=True)
    budget: str | None = option(None, "Take the best up to this much audio, e.g. 50h, 30m.", results=True)
    where: str | None = option(
        None,
        "Conditions on columns of segments and quality, by comma: 'snr_db>=10,dnsmos_overall>=2.5,tag:Music<0.3,speaker=S1'.",
        results=True,
    )
    max_fallback_level: int = option(3, "Whisper: highest fallback level of a text that is kept.", results=True)
    allow_failed_checks: bool = option(
        False, "Whisper: keep texts that fail a quality check at every fallback level.", results=True
    )
    max_compression_ratio: float = option(
        REPEATING_RATIO, "Texts that compress better repeat themselves.", results=True
    )
    max_repeats: int = option(4, "Same words in a row.", results=True)
    min_chars_per_second: float = option(0.5, "Slower texts have left something out.", results=True)
    max_chars_per_second: float = option(40.0, "Faster texts were not said.", results=True)
    min_segment_seconds: float = option(0.1, "Shorter segments are dropped.", results=True)
    max_segment_seconds: float = option(WINDOW_S, "Longer segments are dropped.", results=True)
    languages: str | None = option(None, "Language codes to keep, by comma.", results=True)
    min_language_probability: float = option(0.5, "Where the language was detected.", results=True)
    script: str | None = option(
        None, "Scripts that letters may be of, by comma: latin, cyrillic, greek, arabic, han, ...", results=True
    )
    vocabulary: str | None = option(
        None,
        "File of the words that texts may have, one a line, or `calibrate`: those of the labelled audio's texts.",
        results=True,
    )
    max_unknown_words: float = option(0.0, "With --vocabulary: share of other words.", results=True)
    max_same_text: int = option(5, "Segments with the same text of 4 words or more.", results=True)
    keep_same_audio: bool = option(False, "Keep segments that sound the same as one before.", results=True)
    held_out: str | None = option(
        None,
        "What must not leak into training, by comma: outputs of transcribe, or inputs with their audio and texts. Segments of "
        "the same recording, with the same sound, or the same text of 6 words or more are dropped.",
    )
    balance: str | None = option(
        None,
        "Groups that get like shares, by comma: source, speaker (of the manifest's column of that name, else the channel), "
        "duration, language, text. With --budget they take turns; else --max-group-ratio limits them.",
        results=True,
    )
    max_group_ratio: float = option(
        2.0, "With --balance, no --budget: most audio of a group, times the mean group's.", results=True
    )
    export_audio: bool = option(
        False,
        "Write the kept segments as OUTPUT/audio/*.flac and name those in the manifests: for tools that cannot read shards.",
    )
    listen: int = option(5, "Dropped clips of each reason that report.html lets you listen to.")

    def check(self) -> None:
        for name in self._balance_names():
            if name not in BALANCE_KEYS:
                raise UsageError(f"--balance {name}: expected some of {', '.join(BALANCE_KEYS)}")
        if self.min_lm_score is not None and self.lm is None:
            raise UsageError("--min-lm-score needs --lm FILE")
        for flag in ("max_expected_wer", "max_segment_wer", "max_disagreement", "max_unknown_words"):
            value = getattr(self, flag)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"--{flag.replace('_', '-')} {value}: expected a share from 0 to 1, such as 0.1")
        self.budget_seconds()

    def _balance_names(self) -> list[str]:
        return [name.strip() for name in (self.balance or "").split(",") if name.strip()]

    @property
    def balance_by(self) -> tuple[str, ...]:
        return tuple(self._balance_names())

    def budget_seconds(self) -> float | None:
        """`50h` -> 180000.

        Raises:
            UsageError: no amount of time.
        """
        if self.budget is None:
            return None
        match = HOURS.fullmatch(str(self.budget).strip().lower())
        if match is None or float(match.group(1)) == 0:
            raise UsageError(f"--budget {self.budget}: expected an amount of audio such as 50h or 30m")
        return float(match.group(1)) * SECONDS[match.group(2)]


@dataclass(frozen=True, kw_only=True)
class SelectOutputConfig(OutputPlace):
    """Where a selection goes."""

    EXAMPLE = "name a folder for the selection, e.g. --output selected/"
    LEFT_OUT = frozenset(("quiet",))

    output: str = option("", "Folder or URL for the selection.")
    overwrite: bool = option(False, "Replace the selection that is there.")
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")


@dataclass(frozen=True, kw_only=True)
class SelectJobConfig:
    """`audiomill select`: transcripts -> pseudo-labels."""

    inputs: tuple[str, ...]
    select: SelectConfig = SelectConfig()
    output: SelectOutputConfig
