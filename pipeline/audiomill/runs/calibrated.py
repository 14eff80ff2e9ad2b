"""The calibration file of a job that transcribes."""

from __future__ import annotations

from typing import Any

from audiomill.config.text import TranscriptConfig
from audiomill.errors import InputError
from audiomill.storage.fs import Place
from audiomill.text.calibrate import Numbers, read


def read_calibration(text: TranscriptConfig | None, options: dict[str, Any]) -> Numbers | None:
    """What the file says, if there is one.

    Raises:
        InputError: it is not there, or something else.
    """
    if text is None or text.calibration is None:
        return None
    try:
        return read(Place(text.calibration, options).read())
    except FileNotFoundError as error:
        raise InputError(
            f"--calibration {text.calibration}: no such file; `audiomill select --calibrate` writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--calibration {text.calibration}: expected calibration.json of `audiomill select --calibrate` ({error})"
        ) from error
