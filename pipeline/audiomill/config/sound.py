"""How segments sound: what is measured of them. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.fields import Validated, option


@dataclass(frozen=True, kw_only=True)
class QualityConfig(Validated):
    """How segments sound."""

    COMMON = ("quality", "tagger")

    quality: bool = option(
        False,
        "Table `quality`: noise, clipping, bandwidth, loudness, silence and DNSMOS of every segment (audiomill[quality]). Shown, never "
        "filtered on: `select --where` and `export --where` do that.",
        results=True,
    )
    dnsmos: bool = option(True, "With --quality: DNSMOS too, which costs most of it.", results=True)
    tagger: str | None = option(
        None, "With --quality: model that tags sound (AST), such as MIT/ast-finetuned-audioset-10-10-0.4593."
    )
    num_tags: int = option(5, "With --tagger: most probable tags of a segment.", results=True)

    def check(self) -> None:
        self.require_positive("num_tags")
