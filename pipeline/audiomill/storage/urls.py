"""Names of places: absolute paths, and URLs without what says who may read for how long."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

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
    return ESCAPED.sub(lambda match: chr(0xDC00 + int(match.group(1), 16)), path)


FOLDERS_KEPT = 4096
SIGNATURE = re.compile(
    r"(x-(amz|goog|oss|cos)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|sig|expires|key-pair-id|policy|"
    r"(access_?)?token|auth(orization)?|api_?key|hdnea|hdnts)$",
    re.IGNORECASE,
)
"""Names in a URL's query that say who may read for how long, and not what is read."""
AZURE_SIGNATURE = frozenset(
    ["sv", "se", "st", "sp", "sr", "si", "spr", "sip", "ss", "srt", "sdd", "skoid", "sktid", "skt", "ske", "sks", "skv"]
)
"""Those of Azure, where there is a `sig` with them."""
SAME_STORES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "local": "file"}


def protocol(url: str) -> str:
    """`s3://b/k` -> `s3`; a plain path -> `file`."""
    head, sep, _ = url.partition("://")
    return head if sep else "file"


def absolute(url: str) -> str:
    """Local paths made absolute and without `.` and `..`; URLs unchanged."""
    if protocol(url) not in ("file", "local"):
        return url
    whole = os.path.join(os.getcwd(), url.removeprefix("file://").removeprefix("local://"))
    normal = os.path.normpath(whole)
    if ".." in whole.split("/") and os.path.realpath(normal) != os.path.realpath(whole):
        return os.path.realpath(whole)  # the folder above a link's target
    return normal


def source_of(url: str) -> str:
    """What `source` columns hold: one name for a place, whoever reads it and however long he may.

    Absolute paths; URLs without user, password and signature, under the usual name of the store.
    """
    scheme = protocol(url)
    if scheme in ("file", "local"):
        return absolute(url)
    if scheme not in ("http", "https"):
        return f"{SAME_STORES.get(scheme, scheme)}://{url.partition('://')[2]}"
    parts = urlsplit(url)
    fields = [field for field in parts.query.split("&") if field]
    names = [field.partition("=")[0] for field in fields]
    signs = AZURE_SIGNATURE if "sig" in names else frozenset()
    query = [
        field
        for field, name in zip(fields, names, strict=True)
        if not SIGNATURE.match(name) and name.lower() not in signs
    ]
    return urlunsplit((scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "&".join(query), ""))


def path_of(url: str) -> str:
    """A URL without its query, so that its ending tells what it is; other places unchanged."""
    return url.partition("?")[0].partition("#")[0] if protocol(url) in ("http", "https") else url


def real_folders() -> Callable[[str], str]:
    """Folders behind all links, for `real_path`: the latest ones are remembered."""
    return lru_cache(FOLDERS_KEPT)(os.path.realpath)


def real_path(source: str, real_folder: Callable[[str], str] = os.path.realpath) -> str:
    """A local file behind all links, by a function for its folder that may remember; other sources unchanged."""
    if not source.startswith("/"):
        return source
    path = on_disk(source)
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, _, name = path.rpartition("/")
    return f"{real_folder(folder or '/')}/{name}"


def folder_of(url: str) -> str:
    """Without the last name."""
    return url.rpartition("/")[0] or "/"


def without_credentials(url: str) -> str:
    """`https://user:secret@host/x?token=y` -> `https://host/x`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path.split('?')[0] if scheme.startswith('http') else path}"
