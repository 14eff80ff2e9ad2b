"""Files on any fsspec URL: open, list, retry after network errors, write atomically, create once."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
import psutil

from audiomill.errors import InputError
from audiomill.storage.urls import absolute, on_disk, protocol

COPIED_AT_ONCE = 1 << 20


class RangesOrWhole(io.RawIOBase):
    """A remote file by ranges; where the server gives whole files whatever is asked, a copy of it on disk."""

    def __init__(self, handle: IO[bytes], fs: Any, path: str) -> None:
        self._handle, self._fs, self._path, self._at = handle, fs, path, 0
        self._is_whole = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._read(len(buffer))
        except ValueError:  # "Got more bytes than requested", or a stream that cannot be sought
            self._fetch()
            content = self._read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if getattr(self._handle, "size", None) is None and not self._is_whole:
                self._fetch()
            end = self._handle.seek(0, io.SEEK_END) if self._is_whole else self._handle.size  # type: ignore[attr-defined]
            self._at = max(0, end + offset)
        else:
            self._at = max(0, offset + (self._at if whence == io.SEEK_CUR else 0))
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()

    def _read(self, count: int) -> bytes:
        self._handle.seek(self._at)
        return bytes(self._handle.read(count))

    def _fetch(self) -> None:
        self._handle.close()
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this file
        with self._fs.open(self._path, "rb", block_size=0) as stream:
            shutil.copyfileobj(stream, copy, COPIED_AT_ONCE)
        self._handle, self._is_whole = copy, True


_T = TypeVar("_T")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
OPEN_PROTOCOLS = ("file", "local", "memory", "http", "https")
"""Need no credentials, so `--storage-options` meant for the object store are not given to them."""
NUM_ATTEMPTS = 6
_FIRST_DELAY_S = 0.2
NETWORK_LIBRARIES = (
    "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3",
)  # fmt: skip
"""Their errors are the network's or the server's."""
FINAL_ERRORS = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
READ_AHEAD_BYTES = 1 << 20
VERSIONS = ("ETag", "etag", "e_tag", "generation", "LastModified", "last_modified", "mtime")
SPECIAL_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
MAX_SHOWN_BYTES = 100
"""Of a file's name in that of its temporary one: most systems take 255 in all."""


SIGNED = "signed"
"""In the options that reach places: the URLs with their signatures, by the sources that they stand for."""


@dataclass(frozen=True)
class Place:
    """A file or folder: URL or local path, and the fsspec options to reach it."""

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def fs(self) -> Any:
        return _resolve(self.url, self.options)[0]

    @property
    def path(self) -> str:
        path = str(_resolve(self.url, self.options)[1])
        return on_disk(path) if self.is_local else path

    @property
    def is_local(self) -> bool:
        return protocol(self.url) in ("file", "local")

    def join(self, *names: str) -> Place:
        return Place("/".join([self.url.rstrip("/"), *names]), self.options)

    def exists(self) -> bool:
        return bool(retried(lambda: self.fs.exists(self.path)))

    def read(self) -> bytes:
        """Raises FileNotFoundError when absent."""
        return bytes(retried(lambda: self.fs.cat_file(self.path)))

    def open(self, block_size: int = READ_AHEAD_BYTES) -> IO[bytes]:
        """Seekable binary file; remote ones read ahead `block_size` bytes."""
        if self.is_local:
            return open(self.path, "rb")
        handle: IO[bytes] = retried(lambda: self.fs.open(self.path, "rb", block_size=block_size))
        if protocol(self.url) in ("http", "https"):
            return io.BufferedReader(RangesOrWhole(handle, self.fs, self.path), block_size)
        return handle

    def write(self, content: bytes) -> None:
        """Replaces the whole object in one step: a reader sees the old bytes or the new, never a part."""
        if self.is_local:
            with _temporary(self.path, content) as temporary:
                os.replace(temporary, self.path)
        else:
            retried(lambda: self.fs.pipe_file(self.path, content))

    @contextlib.contextmanager
    def open_for_writing(self) -> Iterator[IO[bytes]]:
        """A stream for content that may be larger than memory; there only when closed without an error."""
        if self.is_local:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        handle = self.fs.open(self.path, "wb", autocommit=False)
        try:
            yield handle
        except BaseException:
            handle.discard()
            raise
        handle.close()
        handle.commit()

    def create(self, content: bytes) -> bool:
        """Writes the object only if there is none yet.

        Returns:
            True if this call made it; False if somebody was first (their content stays).
        """
        if self.is_local:
            with _temporary(self.path, content) as temporary:
                try:
                    os.link(temporary, self.path)
                except FileExistsError:
                    return False
            return True
        if self.exists():  # some drivers take no notice of `mode`
            return False
        try:
            retried(lambda: self.fs.pipe_file(self.path, content, mode="create"))
        except FileExistsError:
            return False
        except Exception as error:
            if _status(error) in (409, 412):
                return False
            raise
        return True

    def remove(self, recursive: bool = False) -> None:
        """Absent files are fine: somebody else may have removed them."""
        with contextlib.suppress(FileNotFoundError):
            retried(lambda: self.fs.rm(self.path, recursive=recursive))

    def sizes(self) -> dict[str, int | None]:
        """Base names of the files in this folder with their bytes; empty if there is no folder. One request."""
        return {_base(each["name"]): each.get("size") for each in self._listed(detail=True)}

    def names(self) -> list[str]:
        """Sorted base names of the files in this folder; empty if there is no folder."""
        return sorted(map(_base, self._listed(detail=False)))

    def _listed(self, detail: bool) -> list[Any]:
        """Never what a listing before has seen."""
        try:
            return list(retried(lambda: self.fs.ls(self.path, detail=detail, refresh=True)))
        except TypeError:  # file systems without a listing cache take no `refresh`
            return list(retried(lambda: self.fs.ls(self.path, detail=detail)))
        except FileNotFoundError:
            return []


def _base(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error, or of what caused it, as the drivers carry it."""
    while error is not None:
        response = getattr(error, "response", None)
        message = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for status in (message, *(getattr(error, name, None) for name in ("status", "status_code", "code"))):
            if isinstance(status, int):
                return status
        error = error.__cause__
    return None


def version_of(detail: Mapping[str, Any]) -> str | None:
    """What a listing says that changes with a file's content: its ETag, or else its time."""
    result = next((detail[name] for name in VERSIONS if detail.get(name)), None)
    return None if result is None else str(result)


def special_kind(place: Place) -> str | None:
    """What a local path is that is neither file nor folder nor nothing."""
    try:
        mode = os.stat(place.path).st_mode if place.is_local else stat.S_IFREG
    except OSError:
        return None
    return SPECIAL_KINDS.get(stat.S_IFMT(mode))


def _resolve(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    scheme = protocol(url)
    if scheme in ("file", "local"):  # whatever stands in a name: `::` joins URLs alone
        return fsspec.filesystem("file"), absolute(url)
    signed = options.get(SIGNED) or {}
    options = {name: value for name, value in options.items() if name != SIGNED}
    url = signed.get(url, url)
    if scheme in options and isinstance(options[scheme], dict):
        chosen = options[scheme]
    elif scheme in OPEN_PROTOCOLS or any(isinstance(value, dict) and key in _EXTRAS for key, value in options.items()):
        chosen = {}
    else:
        chosen = options
    try:
        fs, path = fsspec.core.url_to_fs(url, **chosen)
        return fs, str(path)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        fix = f"pip install 'audiomill[{extra}]'" if extra else str(error)
        raise InputError(f"{url}: no driver for {scheme}:// is installed; run: {fix}") from error
    except ValueError as error:
        raise InputError(
            f"{url}: unknown kind of URL ({error}); expected a path or s3://, gs://, az://, http(s)://, hf://"
        ) from error


def retried(call: Callable[[], _T]) -> _T:
    """Runs `call` again after throttling, resets and time-outs, waiting twice as long each time.

    Missing files and permissions are final and raised at once.
    """
    for attempt in range(NUM_ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            if attempt == NUM_ATTEMPTS - 1:
                raise (
                    ConnectionError(str(error.__cause__)) if isinstance(error, FileNotFoundError) else error
                ) from error
            time.sleep(_FIRST_DELAY_S * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return is_transient(error.__cause__)  # fsspec says of every failure of HTTP that nothing is there
    if isinstance(error, FINAL_ERRORS):
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return False
    if isinstance(error, (OSError, TimeoutError, ConnectionError)):
        return True
    kind = type(error)
    return kind.__module__.split(".")[0] in NETWORK_LIBRARIES


@contextlib.contextmanager
def _temporary(path: str, content: bytes) -> Iterator[str]:
    """A synced file beside `path`; its name tells who wrote it, so that what a kill leaves can be removed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    folder, name = os.path.split(path)
    name = name.encode("utf-8", "surrogateescape")[:MAX_SHOWN_BYTES].decode("utf-8", "ignore")
    temporary = os.path.join(folder, f".{name}.tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        yield temporary
    except OSError as error:
        error.filename = error.filename or path  # "no space left" does not say where
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def remove_stale_temporaries(root: Place) -> None:
    """Deletes temporary files that killed processes of this host left under a local output folder."""
    if not root.is_local:
        return
    marker = f".tmp-{socket.gethostname()}-"
    for path in Path(root.path).glob("**/.*.tmp-*"):
        _, result, tail = path.name.partition(marker)
        if result and not psutil.pid_exists(int(tail.split("-")[0])):
            path.unlink(missing_ok=True)
