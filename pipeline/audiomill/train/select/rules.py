"""Which transcripts become pseudo-labels: rules on what is known without a reference, de-duplication, budget, balance.

Everything here is a function of plain rows. Every row that is not kept has the first rule that it failed as its reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from audiomill.config.select import SelectConfig
from audiomill.text.normalize import normalizer, units_of
from audiomill.text.scripts import scripts_of, units

MIN_SAME_WORDS = 4
MIN_LEAK_WORDS = 6
DURATION_EDGES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class LabelCandidate:
    """A transcript with its signs of doubt; None where a sign was not measured."""

    id: str
    recording_id: str
    text: str
    seconds: float
    source: str
    speaker: str
    language: str | None
    confidence: float | None = None
    self_consistency: float | None = None
    disagreement: float | None = None
    lm_score: float | None = None
    expected_wer: float | None = None
    language_probability: float | None = None
    fallback_level: int | None = None
    failed_checks: tuple[str, ...] = ()
    compression_ratio: float | None = None
    repeats: int = 0
    unmet: str | None = None

    @property
    def chars_per_second(self) -> float:
        return len(self.text) / max(self.seconds, 0.02)


class Verdict(NamedTuple):
    """Why a label is dropped: `reason`, and what was expected and found. Empty: it is kept."""

    reason: str
    detail: str = ""


KEPT = Verdict("")


LabelRule = Callable[[LabelCandidate], Verdict | None]
"""Why a label fails, or None."""


def judged(label: LabelCandidate, rules: Sequence[LabelRule]) -> Verdict:
    """The first rule that a label fails, or `KEPT`."""
    return next((verdict for rule in rules if (verdict := rule(label)) is not None), KEPT)


def rules_of(config: SelectConfig, words: frozenset[str] | None) -> list[LabelRule]:
    """The rules of a selection, in order.

    Args:
        config: thresholds.
        words: that texts may have; None: any.
    """
    languages, scripts = _names(config.languages), _names(config.script)
    disagreement = config.max_disagreement if config.compare_with else None
    return [
        _has_text,
        _bounds("duration", lambda label: label.seconds, config.min_segment_seconds, config.max_segment_seconds),
        _bounds("compression_ratio", lambda label: label.compression_ratio or 0.0, None, config.max_compression_ratio),
        _bounds("repeated", lambda label: label.repeats, None, config.max_repeats),
        _bounds(
            "characters_per_second",
            lambda label: label.chars_per_second,
            config.min_chars_per_second,
            config.max_chars_per_second,
        ),
        *([] if config.allow_failed_checks else [_passes_checks]),
        _bounds("fallback_level", lambda label: label.fallback_level or 0, None, config.max_fallback_level),
        *([] if languages is None else [partial(_is_language, languages)]),
        _bounds("language", lambda label: label.language_probability, config.min_language_probability, None, False),
        *([] if scripts is None else [partial(_is_script, scripts)]),
        *([] if words is None else [partial(_knows_words, words, config.max_unknown_words)]),
        _meets_where,
        _bounds("confidence", lambda label: label.confidence, config.min_confidence, None),
        _bounds("self_consistency", lambda label: label.self_consistency, config.min_self_consistency, None),
        _bounds("disagreement", lambda label: label.disagreement, None, disagreement),
        _bounds("lm_score", lambda label: label.lm_score, config.min_lm_score, None),
        _bounds("segment_wer", lambda label: label.expected_wer, None, config.max_segment_wer),
    ]


def _bounds(
    reason: str,
    sign: Callable[[LabelCandidate], float | None],
    low: float | None,
    high: float | None,
    must_be_measured: bool = True,
) -> LabelRule:
    """A sign from `low` to `high`; without both there is no rule."""

    def check(label: LabelCandidate) -> Verdict | None:
        value = sign(label)
        if (low is None and high is None) or (value is None and not must_be_measured):
            return None
        if value is None:
            return Verdict(reason, f"expected {_range(low, high)}, got none: it was not measured")
        if (low is not None and value < low) or (high is not None and value > high):
            return Verdict(reason, f"expected {_range(low, high)}, got {value:.4g}")
        return None

    return check


def _has_text(label: LabelCandidate) -> Verdict | None:
    return None if label.text.strip() else Verdict("empty_text", "expected words, got none")


def _passes_checks(label: LabelCandidate) -> Verdict | None:
    failed = ", ".join(label.failed_checks)
    return Verdict("failed_checks", f"expected a text that passes its checks, got {failed}") if failed else None


def _is_language(languages: frozenset[str], label: LabelCandidate) -> Verdict | None:
    if label.language in languages:
        return None
    return Verdict("language", f"expected {', '.join(sorted(languages))}, got {label.language}")


def _is_script(scripts: frozenset[str], label: LabelCandidate) -> Verdict | None:
    others = sorted(scripts_of(label.text) - scripts)
    return Verdict("script", f"expected {', '.join(sorted(scripts))}, got {others[0]}") if others else None


def _knows_words(known: frozenset[str], most: float, label: LabelCandidate) -> Verdict | None:
    words = units_of(label.text, label.language)
    unknown = [word for word in words if word not in known]
    if words and len(unknown) / len(words) <= most:
        return None
    return Verdict("vocabulary", f"expected known words, got {' '.join(unknown[:5])!r}")


def _meets_where(label: LabelCandidate) -> Verdict | None:
    return None if label.unmet is None else Verdict("where", f"expected {label.unmet}")


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None or high >= 1e9 else f"{low:g} to {high:g}"


def same_texts(labels: Sequence[LabelCandidate], is_kept: Sequence[bool], most: int) -> list[bool]:
    """True for those to drop: more than `most` of the same longer text; the surest ones stay."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at in ranked(labels):
        text = plain(labels[at].text, labels[at].language)
        if is_kept[at] and len(units(text)) >= MIN_SAME_WORDS:
            groups[text].append(at)
    dropped = {at for group in groups.values() for at in group[most:]}
    return [at in dropped for at in range(len(labels))]


def leaked_texts(labels: Sequence[LabelCandidate], held_out: frozenset[str]) -> list[bool]:
    """True where a longer text is one of the held-out ones (plain, see `plain`)."""
    results = [plain(label.text, label.language) for label in labels]
    return [len(units(text)) >= MIN_LEAK_WORDS and text in held_out for text in results]


def ranked(labels: Sequence[LabelCandidate]) -> list[int]:
    """Numbers of the labels, those with the least expected errors first; ties by id, so that order does not matter."""
    return sorted(range(len(labels)), key=lambda at: (doubt(labels[at]), labels[at].id))


def doubt(label: LabelCandidate) -> float:
    """Expected word error rate, or 1 - confidence where none is expected."""
    if label.expected_wer is not None:
        return label.expected_wer
    return 1.0 - (label.confidence or 0.0)


def within_budget(
    labels: Sequence[LabelCandidate],
    is_kept: Sequence[bool],
    max_seconds: float | None,
    max_expected_wer: float | None,
    balance: Sequence[str],
    max_group_ratio: float,
) -> dict[int, Verdict]:
    """Those of the kept ones that go beyond the budget, with the reason.

    The surest come first; with `balance` and a budget the groups take turns, each with its surest, the group that has
    least audio next. The expected word error rate is that of all words taken.
    """
    order = [at for at in ranked(labels) if is_kept[at]]
    dropped: dict[int, Verdict] = {}
    if balance and max_seconds is None:
        order = _capped(labels, order, balance, max_group_ratio, dropped)
    if max_expected_wer is not None:
        order = _sure_enough(labels, order, max_expected_wer, dropped)
    if max_seconds is None:
        return dropped
    taken = 0.0
    for at in _in_turns(labels, order, balance) if balance else order:
        if taken + labels[at].seconds > max_seconds:
            dropped[at] = Verdict("budget", f"expected to be among the best {max_seconds:g} s")
        else:
            taken += labels[at].seconds
    return dropped


def _sure_enough(
    labels: Sequence[LabelCandidate], order: list[int], most: float, dropped: dict[int, Verdict]
) -> list[int]:
    errors = words = 0.0
    results = []
    for at in order:
        count = max(1, len(units(labels[at].text)))
        errors, words = errors + count * doubt(labels[at]), words + count
        if errors / words > most:
            dropped[at] = Verdict(
                "expected_wer", f"expected at most {most:g} of all that is kept, got {doubt(labels[at]):.3f} here"
            )
            errors, words = errors - count * doubt(labels[at]), words - count
        else:
            results.append(at)
    return results


def _capped(
    labels: Sequence[LabelCandidate],
    order: list[int],
    balance: Sequence[str],
    ratio: float,
    dropped: dict[int, Verdict],
) -> list[int]:
    groups = {at: group_of(labels[at], balance) for at in order}
    seconds: Counter[tuple[str, ...]] = Counter()
    for at in order:
        seconds[groups[at]] += labels[at].seconds  # type: ignore[assignment]
    most = ratio * sum(seconds.values()) / max(1, len(seconds))
    taken: defaultdict[tuple[str, ...], float] = defaultdict(float)
    results = []
    for at in order:
        if taken[groups[at]] + labels[at].seconds > most and taken[groups[at]] > 0:
            dropped[at] = Verdict("balance", f"expected at most {most:.1f} s of {' / '.join(groups[at])}")
        else:
            taken[groups[at]] += labels[at].seconds
            results.append(at)
    return results


def _in_turns(labels: Sequence[LabelCandidate], order: list[int], balance: Sequence[str]) -> list[int]:
    """The group with least audio so far gives its surest one next."""
    import heapq

    waiting: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at in reversed(order):
        waiting[group_of(labels[at], balance)].append(at)
    heap = [(0.0, name) for name in sorted(waiting)]
    results = []
    while heap:
        seconds, name = heapq.heappop(heap)
        at = waiting[name].pop()
        results.append(at)
        if waiting[name]:
            heapq.heappush(heap, (seconds + labels[at].seconds, name))
    return results


def group_of(label: LabelCandidate, balance: Sequence[str]) -> tuple[str, ...]:
    """What a label counts as, by the names of `balance`."""
    values = {
        "source": label.source,
        "speaker": label.speaker,
        "duration": f"{sum(label.seconds >= edge for edge in DURATION_EDGES_S)}",
        "language": label.language or "",
        "text": plain(label.text, label.language),
    }
    return tuple(values[name] for name in balance)


def plain(text: str, language: str | None) -> str:
    """Normalised as for scoring."""
    return " ".join(normalizer(language)(text).split())
