"""LibriSpeech's `.trans.txt`: a name and its text a line. Source: openslr.org/12."""

from __future__ import annotations

from collections.abc import Iterable

from audiomill.text.encodings import decoded, decoded_lines

TRANSCRIPT_SUFFIXES = ".trans.txt"


def transcript_lines(content: bytes) -> dict[str, str]:
    """Texts by the name at the beginning of each line.

    Raises:
        UnknownEncoding: see `audiomill.text.encodings`.
    """
    pairs: Iterable[list[str]] = (line.split(None, 1) for line in decoded_lines(decoded(content).text))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
