"""What a run tells whoever runs it: lines for people, or JSON objects for machines (`--log-format json`). No secrets."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.console import Console

USER = re.compile(r"(\w+://)[^/@\s]+@")
QUERY = re.compile(r"(\w+://[^\s?]+)\?\S+")
SECRET = re.compile(
    r"(?i)\b((?:aws_)?(?:secret|token|password|passwd|access_key|account_key|session_token|signature|api_?key)[\w-]*['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"
)


def redacted(text: str) -> str:
    """Text without user names, passwords, query strings and what is called a secret.

    >>> redacted("https://me:pw@host/x?sig=1 failed: {'secret': 'abc'}")
    "https://host/x failed: {'secret': '***'}"
    """
    return SECRET.sub(r"\1***", QUERY.sub(r"\1", USER.sub(r"\1", text)))


class JsonConsole(Console):
    """A console whose every line is a JSON object: time, level, event, and what belongs to it."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        super().__init__(stderr=True, force_terminal=False)
        self._stream = stream

    def print(self, *objects: Any, **_: Any) -> None:
        """Plain text becomes an event of its own."""
        text = " ".join(str(each) for each in objects)
        self.event("message", level="warning" if text.startswith("warning") else "info", message=text)

    def event(self, event: str, level: str = "info", **fields: Any) -> None:
        stream = self._stream or sys.stderr  # looked up now: it is exchanged while libraries are kept quiet
        stream.write(json_line(event, level, fields) + "\n")
        stream.flush()


class PlainConsole(Console):
    """Text as it is: names in brackets are no markup, and secrets are left out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints, redacted."""
        super().print(*(redacted(each) if isinstance(each, str) else each for each in objects), **options)


def console_for(log_format: str) -> Console:
    """Where a job writes its progress and notes: standard error."""
    return JsonConsole() if log_format == "json" else PlainConsole(stderr=True)


def tell(console: Console, event: str, **fields: Any) -> None:
    """An event with its fields, for machines only."""
    if isinstance(console, JsonConsole):
        console.event(event, **fields)


def tell_part(console: Console, entry: Mapping[str, Any], rejected: Sequence[Mapping[str, Any]]) -> None:
    """A finished part, and its rejected recordings by id (the first ones, where there are very many)."""
    names = ("part", "num_recordings", "num_segments", "num_rejections", "duration_s", "speech_s", "seconds", "bytes")
    tell(console, "part_done", **{name: entry[name] for name in names})
    for each in rejected:
        event = {"part": entry["part"], "recording": each["id"], "stage": each["stage"], "reason": each["reason"]}
        tell(console, "rejected", level="warning", **event)
    omitted = entry["num_rejections"] - len(rejected)
    if omitted > 0:
        tell(console, "rejected_more", level="warning", part=entry["part"], count=omitted)


def json_line(event: str, level: str, fields: dict[str, Any]) -> str:
    """One line of a JSON log."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    clean = {name: redacted(value) if isinstance(value, str) else value for name, value in fields.items()}
    return json.dumps({"time": now, "level": level, "event": event, **clean}, ensure_ascii=False)
