"""Kaldi data folders: `wav.scp` with `segments`, `text` and `utt2spk` beside it, as rows of a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audiomill.errors import InputError
from audiomill.storage.fs import Place
from audiomill.text.encodings import UnknownEncoding, decoded, decoded_lines

NAME, SEGMENTS, CHANNELS = "wav.scp", "segments", "reco2file_and_channel"
_Rows = Iterator[tuple[int, dict[str, Any] | str]]


def is_kaldi(name: str) -> bool:
    return name.rsplit("/", 1)[-1].lower() in (NAME, SEGMENTS)


def kaldi_rows(place: Place) -> _Rows:
    """Utterances of a data folder; whole recordings where there are no segments.

    Args:
        place: its wav.scp, or its segments.

    Raises:
        InputError: segments without a wav.scp.

    Yields:
        Line number, and a manifest row, or what is wrong with the line.
    """
    folder = Place(place.url.rsplit("/", 1)[0] if "/" in place.url else ".", place.options)
    if not folder.join(NAME).exists():
        raise InputError(f"{place.url}: expected a {NAME} beside it, which names the files; got none")
    by_id: dict[str, tuple[int, str]] = {}
    for number, line in _lines(folder.join(NAME)):
        name = line.split(None, 1)[0]
        if name in by_id:
            yield number, f"{NAME}: expected each name once, got {name[:80]!r} in line {by_id[name][0]} before"
        else:
            by_id[name] = number, line
    texts, speakers, sides = (_pairs(folder.join(name)) for name in ("text", "utt2spk", CHANNELS))
    segments = folder.join(SEGMENTS)
    if not segments.exists():
        for name, (number, line) in by_id.items():
            yield number, _row(name, line, _side(sides.get(name)), texts, speakers)
        return
    for number, line in _lines(segments):
        fields = line.split()
        if len(fields) != 4 or fields[1] not in by_id:
            yield number, f"segments: expected an utterance, a recording of {NAME}, start and end, got {line[:80]!r}"
            continue
        name, recording, start, end = fields
        span = {"start": start} if end.startswith("-") else {"start": start, "end": end}
        yield number, _row(name, by_id[recording][1], span | _side(sides.get(recording)), texts, speakers)


def _side(content: str | None) -> dict[str, str]:
    """The channel by `reco2file_and_channel`: a file's name, and A, B or a number from 1."""
    name = (content or "").split()[-1:]
    return {"channel": str(int(name[0]) - 1) if name[0].isdigit() else name[0]} if name else {}


def _row(
    name: str, line: str, span: dict[str, str], texts: dict[str, str], speakers: dict[str, str]
) -> dict[str, Any] | str:
    path = line.split(None, 1)[1].strip() if len(line.split(None, 1)) == 2 else ""
    if not path or path.endswith("|") or path.startswith("|"):
        return f"{NAME}: expected a path, got {path[:80]!r} (commands are never run)"
    columns = {"text": texts.get(name), "utterance_id": name, "speaker": speakers.get(name)}
    return {"audio_filepath": path, **span, **{key: value for key, value in columns.items() if value is not None}}


def _lines(place: Place) -> Iterator[tuple[int, str]]:
    try:
        text = decoded(place.read()).text
    except UnknownEncoding as unknown:
        raise InputError(f"{place.url}: {unknown}; convert it to UTF-8") from None
    yield from ((number, line) for number, line in enumerate(decoded_lines(text), 1) if line.strip())


def _pairs(place: Place) -> dict[str, str]:
    if not place.exists():
        return {}
    split = (line.split(None, 1) for _, line in _lines(place))
    return {fields[0]: fields[1].strip() for fields in split if len(fields) == 2}
