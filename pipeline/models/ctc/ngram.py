"""n-gram language models in KenLM's binary form or as ARPA text, through the kenlm library.

Scores are natural logarithms. Source: Heafield 2011, "KenLM: Faster and Smaller Language Model Queries".
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from audiomill.errors import InputError, UsageError
from audiomill.storage.fs import Place

LN_10 = math.log(10.0)


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

    def __contains__(self, word: str) -> bool:
        return word in self._model

    def score(self, words: list[str]) -> float:
        """Of a whole sentence, its end included."""
        return float(self._model.score(" ".join(words), bos=True, eos=True)) * LN_10

    def start(self) -> Any:
        """State at the start of a sentence."""
        state = self._kenlm.State()
        self._model.BeginSentenceWrite(state)
        return state

    def next(self, state: Any, word: str) -> tuple[float, Any]:
        """Score of a word behind a state, and the state behind the word."""
        following = self._kenlm.State()
        return float(self._model.BaseScore(state, word, following)) * LN_10, following

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
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiomill"
    folder.mkdir(parents=True, exist_ok=True)
    name = place.url.rsplit("/", 1)[-1]
    target = folder / f"{hashlib.sha256(content).hexdigest()[:16]}-{name.removesuffix('.gz')}"
    if not target.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as handle:
            handle.write(gzip.decompress(content) if name.endswith(".gz") else content)
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
