"""Codes in the tables of encode runs -> sequences of tokens on disk, read at random while training.

Tables are read part by part, twice: once to count what there is, once to write it; a corpus may be larger than memory.
F frames, K codebooks, L tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.errors import InputError, UsageError
from audiomill.models.codes.unit_tokens import Joint, UnitVocabulary, deduplicate_codes, joint_codes
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.normalize import Text
from audiomill.train.clips import TrainingRows

TOKENS, ROWS = "tokens.int32", "sequences.parquet"
SEQUENCE = pa.schema([("offset", pa.int64()), ("num_tokens", pa.int64()), ("num_samples", pa.int64())])
_COLUMNS = ["segment_id", "model", "quantizer", "codebook", "num_entries", "codes", "durations"]
MAX_JOINT_BITS = 62


class CodeKind(NamedTuple):
    """Which codes the tables hold: `quantizer` of `model`, `num_codebooks` of `num_entries` each."""

    model: str
    quantizer: str
    num_codebooks: int
    num_entries: int


@dataclass(frozen=True)
class Sequences(TrainingRows):
    """Tokens of segments, or of windows of them. Has what the training loop asks of clips."""

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        return np.ones(len(self), np.float32)

    def labelled_texts(self, language: str | None) -> list[Text]:
        """Nothing: codes are their own labels."""
        return [Text("", None)] * len(self)

    @property
    def seconds(self) -> float:
        return float(self.num_samples.sum()) / MODEL_SAMPLE_RATE

    @cached_property
    def _tokens(self) -> NDArray[np.int32]:
        return np.memmap(self.folder / TOKENS, np.int32, "r")

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        offsets, counts = (self.table.column(name).to_pylist() for name in ("offset", "num_tokens"))
        return list(zip(offsets, counts, strict=True))

    def pcm(self, index: int) -> NDArray[Any]:
        """tokens_L of a sequence."""
        offset, count = self._spans[index]
        return self._tokens[offset : offset + count]


def code_kind(places: Sequence[Place], quantizer: str | None) -> CodeKind:
    """Which codes the tables hold.

    Raises:
        InputError: none, those of several quantizers without a choice, or sizes that differ.
    """
    kinds: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for place in places:
        if not place.join("codes").names():
            raise InputError(f"{place.url}: no codes; expected the --output of an encode run")
        tables = ledger.tables(place, "codes", ["model", "quantizer", "codebook", "num_entries"])
        for row in tables.group_by(["model", "quantizer", "num_entries"]).aggregate([("codebook", "max")]).to_pylist():
            if quantizer in (None, row["quantizer"]):
                kinds.setdefault((row["model"], row["quantizer"]), set()).add(
                    (row["codebook_max"] + 1, row["num_entries"])
                )
    if not kinds:
        raise InputError(f"{', '.join(place.url for place in places)}: no codes of {quantizer or 'any quantizer'}")
    if len(kinds) > 1:
        kinds_text = ", ".join(f"{name} of {model}" for model, name in sorted(kinds))
        raise InputError(
            f"codes of {len(kinds)} quantizers: {kinds_text}; choose with --quantizer, or give fewer inputs"
        )
    (((model, name), sizes),) = kinds.items()
    if len(sizes) > 1:
        kinds_text = " and ".join(f"{books} x {entries}" for books, entries in sorted(sizes))
        raise InputError(
            f"codes of {name}: codebooks of {kinds_text} entries; expected one size, give inputs of one run"
        )
    ((num_codebooks, num_entries),) = sizes
    if num_codebooks * np.log2(num_entries) > MAX_JOINT_BITS:
        raise InputError(
            f"codes of {name}: {num_codebooks} codebooks of {num_entries} entries have too many combinations to be tokens; expected "
            "fewer, encode with --codebooks 2"
        )
    return CodeKind(model, name, num_codebooks, num_entries)


def _segments(places: Sequence[Place], kind: CodeKind) -> Iterator[Joint]:
    """joint_F of every segment, in the order of the tables."""
    for place in places:
        for _, codes in ledger.each_part(place, "codes", _COLUMNS):
            mine = pc.and_(
                pc.equal(codes.column("quantizer"), kind.quantizer), pc.equal(codes.column("model"), kind.model)
            )
            codes = codes.filter(mine)
            ids = codes.column("segment_id").to_pylist()
            for row in range(0, len(ids), kind.num_codebooks):
                rows = range(row, row + kind.num_codebooks)
                assert len({ids[each] for each in rows}) == 1, "codebooks of a segment stand together"
                yield joint_codes(np.stack([_frames(codes, each) for each in rows]), kind.num_entries)


def _frames(codes: pa.Table, row: int) -> NDArray[np.uint16]:
    """One code a frame.

    Raises:
        InputError: a code beyond its codebook.
    """
    result: NDArray[np.uint16] = np.asarray(codes.column("codes")[row].values)
    most = codes.column("num_entries")[row].as_py()
    if len(result) and int(result.max()) >= most:
        raise InputError(
            f"segment {codes.column('segment_id')[row].as_py()}: code {int(result.max())} in a codebook of {most} entries; expected "
            "codes below it: encode this part again"
        )
    durations = codes.column("durations")[row].values
    return result if durations is None else np.repeat(result, np.asarray(durations))


def count_codes(places: Sequence[Place], kind: CodeKind) -> Counter[int]:
    """Frames of each joint code."""
    result: Counter[int] = Counter()
    for joint_F in _segments(places, kind):
        values, counts = np.unique(joint_F, return_counts=True)
        result.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return result


def check_use(counts: Counter[int], kind: CodeKind) -> None:
    """Raises UsageError for codes that tell nothing."""
    total, most = sum(counts.values()), max(counts.values(), default=0)
    if len(counts) < 2:
        raise UsageError(
            f"codes of {kind.quantizer}: {total} frames with {len(counts)} different codes; the codebook is collapsed (or the input "
            f"silent): expected at least 2, one of them in {most} frames is all there is"
        )


def write_sequences(
    places: Sequence[Place],
    kind: CodeKind,
    vocabulary: UnitVocabulary,
    folder: Path,
    hop: int,
    deduplicate: bool,
    window: int,
    least: int,
) -> tuple[Sequences, int]:
    """Writes the tokens; segments longer than a window are cut into windows.

    Args:
        places: outputs of encode runs.
        kind: of the codes.
        vocabulary: of the tokens.
        folder: takes the files.
        hop: samples from one code to the next.
        deduplicate: runs are joined.
        window: most tokens of a sequence.
        least: shorter ones are dropped.

    Returns:
        The sequences, and how many were too short.
    """
    rows: list[dict[str, int]] = []
    offset = dropped = 0
    with (folder / TOKENS).open("wb") as file:
        for joint_F in _segments(places, kind):
            joint_L, lasting_L = (
                deduplicate_codes(joint_F) if deduplicate else (joint_F, np.ones(len(joint_F), np.int64))
            )
            tokens_L = vocabulary.tokens(joint_L)
            for start in range(0, len(tokens_L), window):
                piece = tokens_L[start : start + window]
                if len(piece) < least:
                    dropped += 1
                    continue
                samples = hop * int(lasting_L[start : start + window].sum())
                rows.append({"offset": offset, "num_tokens": len(piece), "num_samples": samples})
                file.write(piece.astype(np.int32).tobytes())
                offset += len(piece)
    table = pa.Table.from_pylist(rows, SEQUENCE)
    pq.write_table(table, folder / ROWS)
    return Sequences(folder, table), dropped


def read_sequences(folder: Path) -> Sequences | None:
    """What an earlier run of the same settings wrote."""
    place = folder / ROWS
    return Sequences(folder, pq.read_table(place)) if place.exists() else None
