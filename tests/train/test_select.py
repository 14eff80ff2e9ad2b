"""Selection of pseudo-labels: rules as properties, figures against known answers, files that other tools read."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audiomill.audio.fingerprint import same_sound, sound_fingerprint
from audiomill.config.select import SelectConfig, SelectJobConfig, SelectOutputConfig
from audiomill.errors import ConfigMismatchError, InputError, UsageError
from audiomill.models.ctc.ngram import NgramModel
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table
from audiomill.text.bootstrap import paired_bootstrap
from audiomill.text.calibrate import cross_fitted, fit_calibration, reliability
from audiomill.text.scripts import scripts_of
from audiomill.text.wer import score_pair
from audiomill.train.pseudo import read_selection
from audiomill.train.select.candidates import _lm_score
from audiomill.train.select.rules import (
    KEPT,
    LabelCandidate,
    doubt,
    group_of,
    judged,
    leaked_texts,
    rules_of,
    same_texts,
    within_budget,
)
from audiomill.train.select.selection import select_labels
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import RATE, encode, noise, tar_bytes
from tests.support.tone_language import write_corpus


def label(number: int = 0, **other: Any) -> LabelCandidate:
    fields = {
        "text": "some words here",
        "seconds": 2.0,
        "source": "a",
        "speaker": "s",
        "language": "en",
        "confidence": 0.9,
    }
    return LabelCandidate(id=f"{number:04d}", recording_id=f"r{number}", **{**fields, **other})


shares = st.floats(0, 1, allow_nan=False)
labels_drawn = st.lists(
    st.builds(
        label,
        number=st.integers(0, 10**6),
        seconds=st.floats(0.2, 30),
        confidence=shares,
        source=st.sampled_from("abc"),
        text=st.sampled_from(["one two three four five", "uno", "a b c d", "something else that was said here"]),
    ),
    max_size=40,
    unique_by=lambda each: each.id,
)


@pytest.mark.parametrize(
    ("reason", "rules", "changes"),
    [
        ("empty_text", {}, {"text": " "}),
        ("duration", {"max_segment_seconds": 1.0}, {}),
        ("compression_ratio", {}, {"compression_ratio": 3.0}),
        ("repeated", {}, {"repeats": 9}),
        ("characters_per_second", {"max_chars_per_second": 5}, {}),
        ("failed_checks", {}, {"failed_checks": ("avg_logprob",)}),
        ("fallback_level", {"max_fallback_level": 1}, {"fallback_level": 3}),
        ("language", {"languages": "de"}, {}),
        ("language", {"min_language_probability": 0.5}, {"language_probability": 0.2}),
        ("script", {"script": "latin"}, {"text": "some слова"}),
        ("vocabulary", {"max_unknown_words": 0.3}, {}),
        ("confidence", {"min_confidence": 0.95}, {}),
        ("self_consistency", {"min_self_consistency": 0.5}, {}),
        ("disagreement", {"compare_with": "other/", "max_disagreement": 0.3}, {"disagreement": 0.5}),
        ("lm_score", {"lm": "x.arpa", "min_lm_score": -5.0}, {"lm_score": -7.0}),
        ("segment_wer", {"max_segment_wer": 0.2}, {"expected_wer": 0.3}),
    ],
)
def test_each_rule_names_itself(reason: str, rules: dict[str, Any], changes: dict[str, Any]) -> None:
    words = frozenset({"some", "words"}) if reason == "vocabulary" else None
    assert judged(label(), rules_of(SelectConfig(), None)) is KEPT
    verdict = judged(label(**changes), rules_of(SelectConfig(**rules), words))
    assert verdict.reason == reason and verdict.detail.startswith("expected")


def test_a_share_of_unknown_words_and_scripts() -> None:
    known = frozenset({"some", "words"})
    assert judged(label(), rules_of(SelectConfig(max_unknown_words=0.34), known)) is KEPT
    assert scripts_of("Zoë 漢字 ελ 12!") == {"latin", "han", "greek"}


@given(labels_drawn, shares)
def test_what_is_kept_is_expected_to_be_as_good_as_asked(labels: list[LabelCandidate], most: float) -> None:
    dropped = within_budget(labels, [True] * len(labels), None, most, (), 2.0)
    kept = [each for at, each in enumerate(labels) if at not in dropped]
    words = [len(each.text.split()) for each in kept]
    if kept:
        assert np.average([doubt(each) for each in kept], weights=words) <= most + 1e-9
        assert max(map(doubt, kept)) <= max(most, 1) and all(v.reason == "expected_wer" for v in dropped.values())


@given(labels_drawn, st.floats(1, 200), st.sampled_from([(), ("source",), ("source", "duration")]))
def test_the_budget_holds_and_what_is_left_out_would_break_it(
    labels: list[LabelCandidate], budget: float, balance: tuple[str, ...]
) -> None:
    dropped = within_budget(labels, [True] * len(labels), budget, None, balance, 2.0)
    taken = sum(each.seconds for at, each in enumerate(labels) if at not in dropped)
    assert taken <= budget + 1e-9
    assert all(labels[at].seconds + taken > budget for at in dropped)


@given(labels_drawn, st.floats(1, 100), st.randoms())
def test_the_order_of_the_rows_does_not_matter(labels: list[LabelCandidate], budget: float, random: Any) -> None:
    def ids_kept(each: list[LabelCandidate]) -> set[str]:
        dropped = within_budget(each, [True] * len(each), budget, 0.3, ("source",), 2.0)
        same = same_texts(each, [True] * len(each), 1)
        return {row.id for at, row in enumerate(each) if at not in dropped and not same[at]}

    shuffled = list(labels)
    random.shuffle(shuffled)
    assert ids_kept(labels) == ids_kept(shuffled)


@given(labels_drawn)
def test_a_tighter_rule_never_keeps_more(labels: list[LabelCandidate]) -> None:
    for loose, tight in ((0.2, 0.6), (0.5, 0.9)):
        rules = [rules_of(SelectConfig(min_confidence=least), None) for least in (loose, tight)]
        kept = [{e.id for e in labels if judged(e, each) is KEPT} for each in rules]
        assert kept[1] <= kept[0]


def test_groups_take_turns_and_the_surest_of_each_come_first() -> None:
    rows = [label(n, source="big", confidence=0.99 - n / 1000) for n in range(20)]
    rows += [label(100 + n, source="small", confidence=0.6 - n / 1000) for n in range(3)]
    dropped = within_budget(rows, [True] * 23, 12.0, None, ("source",), 2.0)
    kept = [at for at in range(23) if at not in dropped]
    assert [rows[at].source for at in kept].count("small") == 3 and kept[:3] == [0, 1, 2]
    capped = within_budget(rows, [True] * 23, None, None, ("source",), 1.0)
    seconds = sum(rows[at].seconds for at in range(20) if at not in capped)
    assert seconds <= 23 and all(rows[at].source == "big" for at in capped)
    assert group_of(label(seconds=3.0), ("duration", "speaker")) == ("2", "s")


def test_longer_texts_are_kept_a_few_times_and_held_out_ones_never() -> None:
    rows = [label(n, text="the same words again", confidence=n / 10) for n in range(4)] + [label(9, text="yes")] * 3
    assert same_texts(rows, [True] * 7, 2) == [True, True, False, False, False, False, False]
    held = frozenset({"this text is in the test set"})
    rows = [label(text="This text is in the test set!"), label(text="yes")]
    assert leaked_texts(rows, held | {"yes"}) == [True, False]


@given(st.integers(0, 10_000))
def test_the_first_that_sounds_the_same_is_found_as_by_comparing_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    kinds = random.integers(-(2**63), 2**63 - 1, 5)
    flips = [sum(1 << int(bit) for bit in random.choice(63, random.integers(0, 7), replace=False)) for _ in range(60)]
    file_hashes = np.where(random.random(60) < 0.1, 0, random.choice(kinds, 60) ^ np.array(flips, np.int64))
    lengths = random.choice([0.5, 1.99, 2.0, 2.03, 10.0, 10.2, 10.21], 60)
    mine, others = slice(0, 25), slice(20, 60)

    def is_same(a: int, b: int) -> bool:
        bits = (int(file_hashes[a]) ^ int(file_hashes[b])) & (2**64 - 1)
        longer, shorter = max(lengths[a], lengths[b]), min(lengths[a], lengths[b])
        close = bits.bit_count() <= (4 if lengths[a] >= 2 else 2) and longer <= shorter * 1.02
        return close and file_hashes[a] != 0 and file_hashes[b] != 0

    expected = [next((b - 20 for b in range(20, 60) if is_same(a, b)), -1) for a in range(25)]
    found = same_sound(file_hashes[mine], lengths[mine], file_hashes[others], lengths[others])
    assert found.tolist() == expected


def test_the_same_sound_is_known_in_other_encodings_and_others_are_not(voices: list[Any]) -> None:
    clips = [pcm for pcm, _ in voices] + [noise(60_000, seed) for seed in range(4)]
    file_hashes = np.array([sound_fingerprint(clip) for clip in clips])
    lengths = np.array([len(clip) / RATE for clip in clips])
    quiet = np.array([sound_fingerprint((clip // 3).astype(np.int16)) for clip in clips])
    assert same_sound(quiet, lengths, file_hashes, lengths).tolist() == list(range(len(clips)))
    coded = []
    for clip, _ in voices:
        content = encode(clip.astype(np.float32) / 32768, kind="OGG", subtype="VORBIS")
        back, _ = soundfile.read(io.BytesIO(content), dtype="int16")
        coded.append(sound_fingerprint(back[: len(clip)]))
    assert same_sound(np.array(coded), lengths[: len(voices)], file_hashes, lengths).tolist() == list(
        range(len(voices))
    )
    others = np.array([sound_fingerprint(clip[8_000:]) for clip in clips])
    assert (same_sound(others, lengths - 0.5, file_hashes, lengths) == -1).all()


def test_a_calibration_finds_the_errors_that_made_the_labels() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(4000, 3))
    truth = 1 / (1 + np.exp(-(-1.5 + 2.0 * features[:, 0] + 0.5 * features[:, 1])))
    wer = (random.random(4000) < truth).astype(float)
    found = fit_calibration(features, wer).expected_wer(features)
    assert np.abs(found - truth).mean() < 0.03
    bins, error = reliability(cross_fitted(features, wer), wer)
    assert error < 0.04 and sum(count for _, _, count in bins) == 4000


def test_the_bootstrap_agrees_with_the_case_that_can_be_counted() -> None:
    """Two recordings of one word, the first mended by the student: of four resampled sets (AA, AB, BA, BB) only BB
    sees no gain, a tie, which counts half: 1/8."""
    found = paired_bootstrap([1, 0], [0, 0], [1, 1], num_samples=40_000)
    assert abs(found.probability - 1 / 8) < 0.01
    assert (found.before, found.after) == (0.5, 0.0)
    worse = paired_bootstrap([0, 0], [1, 0], [1, 1])
    assert worse.probability > 0.85 and not worse.is_better(0.5)
    same = paired_bootstrap([1] * 50, [1] * 50, [2] * 50)
    assert same.probability == 0.5 and not same.is_better(0.5)
    better = paired_bootstrap([1] * 100, [0] * 50 + [1] * 50, [1] * 100)
    assert better.is_better(0.001) and better.after_interval[0] < 0.5 < better.after_interval[1]


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of a fake model for 30 clips of tones, one of them twice, one of the test set."""
    root = tmp_path_factory.mktemp("select")
    write_corpus(root / "unlabelled", range(30))
    write_corpus(root / "test", range(100, 104))
    again = (root / "unlabelled" / "0003.wav").read_bytes()
    (root / "unlabelled" / "twin.wav").write_bytes(again)
    (root / "unlabelled" / "leak.wav").write_bytes((root / "test" / "0101.wav").read_bytes())
    run(root / "unlabelled", root / "out", segment="none", consistency_samples=2)
    run(root / "test", root / "test-out", segment="none")
    return root


def selected(root: Path, name: str, **rules: Any) -> tuple[dict[str, Any], Path]:
    config = SelectJobConfig(
        inputs=(str(root / "out"),),
        select=SelectConfig(**rules),
        output=SelectOutputConfig(output=str(root / name), overwrite=True),
    )
    return select_labels(config, Console(quiet=True)), root / name


def test_every_segment_is_kept_or_dropped_with_its_reason(transcripts: Path) -> None:
    held = f"{transcripts / 'test'},{transcripts / 'test-out'}"
    report, folder = selected(transcripts, "all", held_out=held, max_chars_per_second=1000.0)
    kept = read_table(Place(str(folder / "selected.parquet"))).to_pylist()
    dropped = read_table(Place(str(folder / "dropped.parquet"))).to_pylist()
    assert len(kept) + len(dropped) == report["num_segments"] == 32
    by_name = {row["source"].rsplit("/", 1)[-1]: row for row in dropped}
    assert by_name["twin.wav"]["reason"] == "same_audio" and by_name["leak.wav"]["reason"] == "held_out_audio"
    assert {name: each["count"] for name, each in report["dropped"].items()} == {"same_audio": 1, "held_out_audio": 1}
    assert report["hours_kept"] == pytest.approx(sum(row["duration"] for row in kept) / 3600)
    assert report["true_wer"] is not None and report["true_wer"] > 0.9, "the fake writes nonsense"
    page = (folder / "report.html").read_text()
    assert page.count("<audio") >= 7 and "held out audio" in page


def test_the_selection_is_read_by_ourselves_nemo_style_readers_datasets_and_lhotse(transcripts: Path) -> None:
    _, folder = selected(transcripts, "read", max_chars_per_second=1000.0)
    rows = read_table(Place(str(folder / "selected.parquet"))).to_pylist()
    ours = list(read_selection(Place(str(folder))))
    assert [entry.reference for entry, _ in ours] == [row["text"] for row in rows]
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [row["text"] for row in rows]
    assert all(Path(line["audio_filepath"]).is_file() and line["duration"] > 0 for line in lines)
    import datasets

    table = datasets.load_dataset(
        "json", data_files=str(folder / "manifest.jsonl"), split="train", cache_dir=str(folder / "c")
    )
    assert table["text"][:3] == [row["text"] for row in rows[:3]]
    from lhotse import CutSet

    cuts = list(CutSet.from_file(folder / "cuts.jsonl.gz"))
    assert [cut.supervisions[0].text for cut in cuts] == [row["text"] for row in rows]
    assert cuts[0].load_audio().shape[1] == pytest.approx(rows[0]["duration"] * RATE, abs=2)


def test_clips_of_a_shard_are_exported_for_tools_that_read_files_only(transcripts: Path) -> None:
    names = sorted((transcripts / "unlabelled").glob("000*.wav"))
    (transcripts / "shard.tar").write_bytes(tar_bytes({path.name: path.read_bytes() for path in names}))
    run(transcripts / "shard.tar", transcripts / "shard-out", segment="none")
    config = SelectJobConfig(
        inputs=(str(transcripts / "shard-out"),),
        select=SelectConfig(max_chars_per_second=1000.0, export_audio=True),
        output=SelectOutputConfig(output=str(transcripts / "exported")),
    )
    select_labels(config, Console(quiet=True))
    lines = [json.loads(line) for line in (transcripts / "exported" / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == len(names)
    for line, path in zip(lines, names, strict=True):
        ours, theirs = (soundfile.read(each, dtype="int16")[0] for each in (line["audio_filepath"], path))
        assert np.array_equal(ours, theirs) and line["offset"] == 0
    assert [entry.member for entry, _ in read_selection(Place(str(transcripts / "exported")))] == [
        path.name for path in names
    ]


def test_a_second_model_a_vocabulary_and_a_budget_decide(transcripts: Path) -> None:
    agreed, _ = selected(
        transcripts,
        "compare_with",
        compare_with=str(transcripts / "out"),
        max_disagreement=0.0,
        max_chars_per_second=1000.0,
    )
    assert agreed["num_kept"] == 31
    (transcripts / "words.txt").write_text("alpha\nbravo\n")
    with pytest.raises(UsageError, match=r"every segment was dropped \(.*vocabulary"):
        selected(transcripts, "words", vocabulary=str(transcripts / "words.txt"))
    budget, _ = selected(transcripts, "budget", budget="10s", balance="duration")
    assert 0 < budget["hours_kept"] * 3600 <= 10


def test_what_cannot_be_selected_from_is_told(transcripts: Path, tmp_path: Path) -> None:
    config = SelectJobConfig(inputs=(str(tmp_path),), output=SelectOutputConfig(output=str(tmp_path / "o")))
    with pytest.raises(InputError, match="no output of audiomill"):
        select_labels(config, Console(quiet=True))
    with pytest.raises(InputError, match="expected at least 20 segments with a reference"):
        selected(transcripts, "few", calibrate=str(transcripts / "test-out"))
    with pytest.raises(UsageError, match="holds a selection"):
        _, folder = selected(transcripts, "twice")
        select_labels(dataclasses.replace(config, output=SelectOutputConfig(output=str(folder))), Console(quiet=True))
    for wrong in ({"budget": "many"}, {"balance": "mood"}, {"max_expected_wer": 3.0}, {"min_lm_score": -3.0}):
        with pytest.raises(UsageError, match=r"--|needs"):
            SelectConfig(**wrong)
    assert SelectConfig(budget="90m").budget_seconds() == 5400


def test_a_model_of_letters_scores_scripts_without_blanks_by_letters(tmp_path: Path) -> None:
    """As one word of the whole sentence every text was unknown."""
    lines = ["\\data\\", "ngram 1=5", "ngram 2=1", "", "\\1-grams:", "-1\t<unk>", "0\t<s>\t0", "-0.5\t</s>"]
    lines += ["-0.25\t你\t0", "-0.25\t好\t0", "", "\\2-grams:", "-0.1\t你 好", "", "\\end\\", ""]
    (tmp_path / "letters.arpa").write_text("\n".join(lines), encoding="utf-8")
    model = NgramModel(tmp_path / "letters.arpa")
    assert _lm_score("你好", model) == _lm_score("你 好", model) == pytest.approx(math.log(10) * -0.85 / 2, rel=1e-4)
    assert _lm_score("hello", model) < _lm_score("你好", model)


def test_a_calibration_is_kept_and_makes_confidences_of_later_transcripts_honest(
    tone_model: Path, tmp_path: Path
) -> None:
    """Fitted on labelled noise, applied to other noise: what is expected is nearer the truth than what the model says."""
    common: dict[str, Any] = {"model": tone_model / "model" / "checkpoint", "segment": "none"}
    for name, numbers in (("labelled", range(600, 640)), ("new", range(700, 740))):
        write_corpus(tmp_path / name, numbers, noise=0.3)
        run(tmp_path / name, tmp_path / f"{name}-texts", **common)
    config = SelectJobConfig(
        inputs=(str(tmp_path / "new-texts"),),
        select=SelectConfig(calibrate=str(tmp_path / "labelled-texts")),
        output=SelectOutputConfig(output=str(tmp_path / "selection")),
    )
    select_labels(config, Console(quiet=True))
    file = tmp_path / "selection" / "calibration.json"
    told = json.loads(file.read_text())
    assert told["signs"][0] == "confidence" and told["num_segments"] == 40
    run(tmp_path / "new", tmp_path / "calibrated", **common, calibration=file)
    wrong = {}
    for name in ("new-texts", "calibrated"):
        found = rows(tmp_path / name, "recordings")
        by_id = {row["recording_id"]: row["confidence"] for row in rows(tmp_path / name, "segments")}
        true = [1 - min(1.0, score_pair(row["reference"], row["text"], None)[0].rate) for row in found]
        wrong[name] = abs(np.mean([by_id[row["id"]] for row in found]) - np.mean(true))
    assert wrong["calibrated"] < wrong["new-texts"] and wrong["calibrated"] < 0.15
    with pytest.raises(ConfigMismatchError, match="--calibration"):
        run(tmp_path / "new", tmp_path / "calibrated", **common)
    (tmp_path / "other.json").write_text("{}")
    for name, words in (("none.json", "no such file"), ("other.json", "expected calibration.json")):
        with pytest.raises(InputError, match=f"--calibration .*{name}: {words}"):
            run(tmp_path / "new", tmp_path / "out", **common, calibration=tmp_path / name)
