"""A training goes on with what it began with, alone in its folder; a loop looks at its inputs before it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from audiomill.errors import UsageError
from audiomill.models.ctc.word_pieces import learned_pieces
from audiomill.train.fit.output_lock import clear_training, locked
from audiomill.train.fit.same_data import check_same_data
from audiomill.train.loop.labelling import Labelling
from audiomill.train.loop.loop_inputs import changed_inputs, check_inputs, seen_inputs
from tests.support.synth import encode, tone


def clips(*rows: tuple[str, str]) -> pa.Table:
    return pa.table(
        {"source": [name for name, _ in rows], "text": [text for _, text in rows], "offset": range(len(rows))}
    )


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (clips(("a", "one"), ("b", "three")), "b has other sound or text"),
        (clips(("a", "one")), "b is gone"),
        (clips(("a", "one"), ("b", "two"), ("c", "x")), "c is new"),
    ],
)
def test_clips_that_changed_since_a_state_was_saved_are_named(tmp_path: Path, now: pa.Table, message: str) -> None:
    first = clips(("a", "one"), ("b", "two"))
    check_same_data(tmp_path, first, None)
    check_same_data(tmp_path, now, None)  # nothing was learnt yet
    check_same_data(tmp_path, first, None)
    (tmp_path / "state" / "update-7.pt").write_bytes(b"")
    check_same_data(tmp_path, first, None)
    with pytest.raises(UsageError, match=message):
        check_same_data(tmp_path, now, None)
    with pytest.raises(UsageError, match="dev clips changed"):
        check_same_data(tmp_path, first, first)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "o"):
        with pytest.raises(UsageError, match="another training works there"), locked(tmp_path / "o"):
            pass
        (tmp_path / "o" / "metrics.jsonl").write_text("x")
        clear_training(tmp_path / "o")
        with pytest.raises(UsageError, match="another training"), locked(tmp_path / "o"):
            pass
    with locked(tmp_path / "o"):
        assert [each.name for each in (tmp_path / "o").iterdir()] == ["lock"]


def test_word_pieces_are_the_same_every_time_and_write_their_texts() -> None:
    texts = ["zero one two three four five six seven eight nine"[at : at + 9].strip() for at in range(40)]
    first, second = (learned_pieces(texts, 26) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) <= 26
    assert [first.convert_ids_to_tokens(at) for at in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    for text in texts:
        ids = first(text, add_special_tokens=False)["input_ids"]
        assert first.unk_token_id not in ids and first.decode(ids) == " ".join(text.split())


def corpus(root: Path, **counts: int) -> dict[str, tuple[str, ...]]:
    at = 0
    for role, count in counts.items():
        (root / role).mkdir(parents=True)
        for _ in range(count):
            at += 1
            (root / role / f"{at}.wav").write_bytes(encode(tone(0.2, 200 + 10 * at)))
            (root / role / f"{at}.txt").write_text(f"text {at}")
    return {role: (str(root / role),) for role in counts}


def test_a_loop_says_first_what_makes_its_measures_worthless(tmp_path: Path) -> None:
    inputs = corpus(tmp_path, labelled=3, unlabelled=2, dev=21, test=2)
    seen = seen_inputs(inputs, Labelling())
    check_inputs(seen, True)
    few = {**seen, "dev": seen["dev"][:8]}
    check_inputs(few, False)
    with pytest.raises(UsageError, match=r"dev: 8 recordings with a text; .* at least 20"):
        check_inputs(few, True)
    (tmp_path / "test" / "copy.wav").write_bytes((tmp_path / "labelled" / "1.wav").read_bytes())
    with pytest.raises(UsageError, match=r"1 recording in both labelled and test, the first .*1.wav"):
        check_inputs(seen_inputs(inputs, Labelling()), True)
    with pytest.raises(UsageError, match="test: no recording has a text"):
        check_inputs({**seen, "test": [each._replace(has_text=False) for each in seen["test"]]}, True)


@pytest.mark.parametrize("role", ["labelled", "dev", "test"])
@pytest.mark.parametrize("change", ["new", "gone", "with other sound or text"])
def test_inputs_of_a_loop_that_changed_are_noticed(tmp_path: Path, role: str, change: str) -> None:
    inputs = corpus(tmp_path, labelled=2, unlabelled=2, dev=2, test=2)
    assert changed_inputs(tmp_path, seen_inputs(inputs, Labelling())) == []
    (tmp_path / "unlabelled" / "more.wav").write_bytes(encode(tone(0.3)))
    assert "1 new" in changed_inputs(tmp_path, seen_inputs(inputs, Labelling()))[0]
    (first, *_) = sorted((tmp_path / role).glob("*.txt"))
    changes: dict[str, Any] = {
        "new": lambda: (tmp_path / role / "x.wav").write_bytes(encode(tone(0.4))),
        "gone": lambda: first.with_suffix(".wav").unlink(),
        "with other sound or text": lambda: first.write_text("next 9"),
    }
    changes[change]()
    with pytest.raises(UsageError, match=f"{role} changed since the loop began .1 {change}"):
        changed_inputs(tmp_path, seen_inputs(inputs, Labelling()))
