"""What text is wanted of a model, and how it is searched for. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.defaults import REPEATING_RATIO
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
        "CTC, Whisper, speech_to_text: texts kept while searching; 1: the best label of every frame (or token), without any of the options below.",
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


@dataclass(frozen=True, kw_only=True)
class TranscriptConfig(Validated):
    """What text is wanted."""

    COMMON = ("language", "task", "word_times", "second_pass_model", "second_pass_threshold")

    language: str | None = option(
        None, "Language code such as en.", otherwise="detected per segment; .en models: en", results=True
    )
    languages: str | None = option(
        None, "Codes by comma, such as en,de: the language of a segment is looked for among these only.", results=True
    )
    task: str = option(
        "transcribe",
        "transcribe, or translate to English (multilingual Whisper).",
        choices=("transcribe", "translate"),
        results=True,
    )
    timestamps: bool = option(
        True, "Whisper: decode with timestamp tokens, which give phrases and their times.", results=True
    )
    prompt: str | None = option(
        None, "Whisper: text that it is told came before, for names, spellings and style.", results=True
    )
    suppress_numerals: bool = option(False, "Whisper: write numbers as words.", results=True)
    drop_special_tokens: bool = option(
        False,
        "CTC: leave out <unk> and other special tokens, which say that the model has no letter for a sound.",
        results=True,
    )
    punctuation: bool = option(True, "Canary: write punctuation and capitals.", results=True)
    word_times: bool = option(
        True, "Whisper: when each word was said, from the decoder's attention (CTC models always tell).", results=True
    )
    max_new_tokens: int = option(224, "Whisper: longest text of a segment, in tokens.", results=True)
    fallback: bool = option(
        True,
        "Whisper: check what the decoder reports of each text, and decode again in a longer context what does not pass; off: the "
        "text of the first pass.",
        results=True,
    )
    encoder_context: str = option(
        "auto",
        "Whisper: what the encoder is shown. short: a segment and a margin, which is faster; what loops by it is decoded again with "
        "a longer one; window: 30 s, filled up with silence; auto: short with --fallback.",
        choices=("auto", "short", "window"),
        results=True,
    )
    second_pass_model: str | None = option(
        None,
        "A larger checkpoint for doubtful segments; hub id, folder or URL. With --second-pass-threshold any model; without, a Whisper of the "
        "same vocabulary behind a Whisper, for texts that fail their checks at every fallback level.",
    )
    second_pass_threshold: float | None = option(
        None,
        "Texts less sure than this (`confidence`, 0 to 1) are written again by --second-pass-model, in the same run.",
        results=True,
    )
    calibration: str | None = option(
        None,
        "calibration.json of `audiomill select --calibrate`: `confidence` becomes the share of right words to expect.",
    )
    min_avg_logprob: float = option(
        -1.0, "Whisper: texts below this mean log-probability are decoded again.", results=True
    )
    max_compression_ratio: float = option(
        REPEATING_RATIO, "Whisper: texts that compress better repeat themselves.", results=True
    )
    max_no_speech_prob: float = option(
        0.6, "Whisper: above this and below --min-avg-logprob a text counts as invented and is dropped.", results=True
    )
    low_confidence: str = option(
        "keep",
        "keep: texts that fail a check at every fallback level stay, with the checks in `failed_checks`; drop: they are emptied.",
        choices=("keep", "drop"),
        results=True,
    )

    decoder: SearchConfig = SearchConfig()

    # No option: `python -m benchmarks.words` measures what it is worth.
    fill_deletions: bool = True

    def check(self) -> None:
        self.require_positive("max_new_tokens")
        if self.second_pass_threshold is not None and not 0 < self.second_pass_threshold <= 1:
            raise UsageError(
                f"--second-pass-threshold {self.second_pass_threshold:g}: expected a confidence above 0, up to 1"
            )
        if self.second_pass_threshold is not None and self.second_pass_model is None:
            raise UsageError("--second-pass-threshold needs the model that writes again: add --second-pass-model")
        if self.language is not None and self.languages is not None:
            raise UsageError("--language and --languages exclude each other: drop one of them")
