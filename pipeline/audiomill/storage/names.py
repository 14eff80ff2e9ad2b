"""Names of files are bytes, and columns of tables are text: every name has a text, and the text leads back to the file."""

from __future__ import annotations

import os
import re

ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def readable(name: str) -> str:
    """The name as text: bytes that are no UTF-8 as `\\xe9`, halves of characters as `\\ud83d`."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return "".join(map(_escaped, name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as Python holds it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0xD800 <= code <= 0xDFFF else character


def on_disk(path: str) -> str:
    """The local file that a readable name stands for."""
    if "\\x" not in path or os.path.lexists(path):
        return path
    return ESCAPED.sub(lambda found: chr(0xDC00 + int(found.group(1), 16)), path)
