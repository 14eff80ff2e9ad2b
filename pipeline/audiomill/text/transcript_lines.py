"""LibriSpeech's `.trans.txt`: a name and its text a line. Source: openslr.org/12."""

from __future__ import annotations

from collections.abc import Iterable

from audiomill.text.encodings import decoded, lines_of

TRANSCRIPTS = ".trans.txt"


def transcript_lines(content: bytes) -> dict[str, str]:
    """Texts by the name at the beginning of each line.

    Raises:
        UnknownEncoding: see `audiomill.text.encodings`.
    """
    pairs: Iterable[list[str]] = (line.split(None, 1) for line in lines_of(decoded(content).text))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
