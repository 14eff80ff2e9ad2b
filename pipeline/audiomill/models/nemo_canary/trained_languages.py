"""What Canary-1B-v2 was trained on."""

from __future__ import annotations

LANGUAGES = frozenset(
    ("bg", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el", "hu", "it", "lv", "lt", "mt", "pl", "pt", "ro", "sk",
     "sl", "es", "sv", "ru", "uk")
)  # fmt: skip
"""Its vocabulary has tokens of others too, with which it writes English."""
