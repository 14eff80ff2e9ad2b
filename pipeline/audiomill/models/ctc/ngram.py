"""n-gram language models in KenLM's binary form or as ARPA text, through the kenlm library.

Scores are natural logarithms. Source: Heafield 2011, "KenLM: Faster and Smaller Language Model Queries".
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import math
import os
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from audiomill.errors import InputError, UsageError
from audiomill.storage.fs import Place

WORDS_KEPT = 1 << 16
GZIP = b"\x1f\x8b"
LN_10 = math.log(10.0)


class ReadOnly(Exception):
    """A folder that cannot be written."""


class NgramModel:
    """A language model over words.

    Args:
        path: local file, see `local_file`.

    Raises:
        InputError: not a language model.
    """

    def __init__(self, path: Path) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise UsageError("--lm needs the kenlm package; run: pip install 'audiomill[lm]'") from error
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(str(path), config)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rsplit("Exception.", 1)[-1].strip()[-200:]
            raise InputError(
                f"--lm {path}: expected a KenLM binary or an ARPA file of bigrams or more, got: {reason}"
            ) from error
        self._kenlm = kenlm
        self._known = lru_cache(WORDS_KEPT)(self._written)

    def __contains__(self, word: str) -> bool:
        return self._known(word) in self._model

    def _written(self, word: str) -> str:
        """A word in the case in which the model knows it: what it was made from may have other letters than labels have."""
        forms = (word, word.lower(), word.upper(), word.capitalize())
        return next((form for form in forms if form in self._model), word)

    def score(self, words: list[str]) -> float:
        """Of a whole sentence, its end included."""
        return float(self._model.score(" ".join(map(self._known, words)), bos=True, eos=True)) * LN_10

    def start(self) -> Any:
        """State at the start of a sentence."""
        state = self._kenlm.State()
        self._model.BeginSentenceWrite(state)
        return state

    def next(self, state: Any, word: str) -> tuple[float, Any]:
        """Score of a word behind a state, and the state behind the word."""
        following = self._kenlm.State()
        return float(self._model.BaseScore(state, self._known(word), following)) * LN_10, following

    def end(self, state: Any) -> float:
        """Score of the sentence's end behind a state."""
        return self.next(state, "</s>")[0]


def local_file(place: Place, option: str) -> Path:
    """A file on this machine with the content of `place`: itself, or a copy; .gz is unpacked.

    Raises:
        InputError: no such file.
    """
    if place.is_local and not place.url.endswith(".gz"):
        if not Path(place.path).is_file():
            raise InputError(f"{option} {place.url}: no such file; check the path")
        return Path(place.path)
    try:
        content = place.read()
    except FileNotFoundError as error:
        raise InputError(f"{option} {place.url}: no such file; check the path") from error
    try:
        plain = gzip.decompress(content) if content.startswith(GZIP) else content  # whatever its name says
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{option} {place.url}: cannot be unpacked ({error}); is it cut short?") from error
    name = f"{hashlib.sha256(content).hexdigest()[:16]}-{place.url.rsplit('/', 1)[-1].removesuffix('.gz')}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiomill"
    for folder in (cache, Path(tempfile.gettempdir()) / f"audiomill-{os.getuid()}"):
        with contextlib.suppress(PermissionError, FileNotFoundError, ReadOnly):
            return _local_copy(folder, name, plain)
    raise InputError(
        f"{option} {place.url}: no place for a copy; set XDG_CACHE_HOME or TMPDIR to a folder that can be written"
    )


def _local_copy(folder: Path, name: str, content: bytes) -> Path:
    """A file of that name and content in a folder; written in one step."""
    target = folder / name
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as handle:
            handle.write(content)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ReadOnly from error
        raise
    os.replace(handle.name, target)
    return target


def file_fingerprint(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as handle:
        return (
            hashlib.file_digest(handle, "sha256").hexdigest()[:16]
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(handle.read()).hexdigest()[:16]
        )
