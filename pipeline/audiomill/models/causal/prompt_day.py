"""Templates of chats may tell the day. Ours is always the same: what is written must not depend on when it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo


class FixedDay(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedDay:
        return cls(2025, 1, 1, tzinfo=tz)


@contextmanager
def on_a_fixed_day() -> Iterator[None]:
    """Inside, templates tell the same day always: transformers takes it from its own clock and from nobody else."""
    from transformers.utils import chat_template_utils as templates

    before = templates.datetime
    templates.datetime = FixedDay
    try:
        yield
    finally:
        templates.datetime = before
