"""Options of how text is searched for, and of what tells doubt about a text. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.fields import Validated, option
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Validated):
    """Beam search of CTC models and encoder-decoders, language models behind it, and signs of doubt."""

    COMMON = ("beam_size", "lm", "hotwords")

    consistency_samples: int = option(
        0,
        "Hear each segment again so many times (5 at most), faster, slower and in noise; `consistency_samples` tells how much stays.",
        results=True,
    )
    beam_size: int = option(
        1,
        "CTC, seq2seq: texts kept while searching; 1: the best label of every frame (or token), without any of the options below.",
        results=True,
    )
    beam_size_token: int = option(16, "CTC: most probable tokens of a frame that are tried.", results=True)
    num_best: int = option(1, "CTC, seq2seq: texts kept in `nbest`.", results=True)
    lm: str | None = option(
        None, "CTC, seq2seq: n-gram language model, KenLM binary or ARPA (.arpa, .arpa.gz); path or URL."
    )
    lm_weight: float = option(0.5, "CTC, seq2seq: weight of the language model's natural logarithms.", results=True)
    word_insertion_score: float = option(
        1.0, "CTC, seq2seq: with --lm, added for each word, against its liking for few.", results=True
    )
    unk_score: float = option(
        -10.0, "CTC, seq2seq: added for each word that the language model does not know.", results=True
    )
    coverage_score: float = option(
        0.0, "seq2seq: added for each encoder frame that the text has looked at.", results=True
    )
    lexicon: str | None = option(
        None, "CTC: file with a word a line (spelling may follow a tab): no other word is written."
    )
    hotwords: str | None = option(
        None, "CTC: words and phrases to favour, by comma, or @FILE with one a line.", results=True
    )
    hotword_score: float = option(5.0, "CTC: added for each hotword.", results=True)
    rescore_model: str | None = option(
        None, "CTC, seq2seq: causal language model that weighs the best texts again; hub id, folder or URL."
    )
    rescore_weight: float = option(0.3, "CTC, seq2seq: weight of its natural logarithms.", results=True)
    save_posteriors: int = option(
        0,
        "CTC: keep so many tokens a frame in OUTPUT/posteriors, for `audiomill redecode` with other settings; 0: none.",
        results=True,
    )

    def check(self) -> None:
        self.require_positive("beam_size", "beam_size_token", "num_best")
        if not 0 <= self.consistency_samples <= 5:
            raise UsageError(f"--consistency_samples {self.consistency_samples}: expected 0 (off) to 5")
        if not 0 <= self.save_posteriors <= 255:
            raise UsageError(f"--save-posteriors {self.save_posteriors}: expected 0 (none) to 255 tokens a frame")
        needs_beam = [
            name for name in ("lm", "lexicon", "hotwords", "rescore_model", "coverage_score") if getattr(self, name)
        ]
        if self.beam_size == 1 and (needs_beam or self.num_best > 1):
            name = (needs_beam or ["num_best"])[0].replace("_", "-")
            raise UsageError(f"--{name} needs a beam search: add --beam-size 32")
        if self.num_best > self.beam_size:
            raise UsageError(f"--num-best {self.num_best}: expected at most --beam-size {self.beam_size}")
