"""Real HTTP servers as they are: without ranges, with signatures, compressing, and overloaded at first."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.sources.listing import list_inputs
from audiomill.sources.shards import ShardReader
from audiomill.storage.fs import Place, retried
from tests.support.synth import encode, noise

CONTENT = np.random.default_rng(0).bytes(300_000)
MANIFEST = b'{"audio_filepath": "a.wav", "text": "hi"}\n' * 2


def shard() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        member = tarfile.TarInfo("x.wav")
        content = encode(noise(16_000))
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()


FILES = {"/content": CONTENT, "/m.jsonl": MANIFEST, "/s.tar": shard()}


class WithoutRanges(BaseHTTPRequestHandler):
    """Whole files, whatever is asked; /busy/ answers 503 twice first, /gz/ compresses."""

    asked: Counter[str] = Counter()  # noqa: RUF012

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, has_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked[path] += 1
        is_busy = path.startswith("/busy") and self.asked[path] <= 2
        content = FILES.get(path.removeprefix("/busy").removeprefix("/gz"))
        status = 503 if is_busy else 404 if content is None else 200
        body = (
            b"" if status != 200 or content is None else gzip.compress(content) if path.startswith("/gz") else content
        )
        self.send_response(status)
        if path.startswith("/gz"):
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), WithoutRanges)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()


@given(st.lists(st.tuples(st.integers(0, 310_000), st.integers(1, 70_000)), max_size=6))
@settings(max_examples=10, deadline=None)
def test_a_server_without_ranges_gives_every_place_of_a_file(server: str, reads: list[tuple[int, int]]) -> None:
    with Place(f"{server}/content").open(1 << 14) as handle:
        for at, count in reads:
            handle.seek(at)
            assert handle.read(count) == CONTENT[at : at + count]
        assert handle.seek(0, io.SEEK_END) == len(CONTENT)


def test_signed_urls_are_read_and_named_without_their_signatures(server: str) -> None:
    inputs = (f"{server}/s.tar?X-Amz-Signature=abc", f"{server}/m.jsonl?X-Amz-Signature=abc", f"{server}/gz/m.jsonl")
    listing = list_inputs(inputs, {}, None, "/nowhere")
    assert {entry.source for entry in listing.entries} == {f"{server}/s.tar", f"{server}/a.wav", f"{server}/gz/a.wav"}
    (member,) = [entry for entry in listing.entries if entry.member]
    assert listing.signed == {f"{server}/s.tar": inputs[0]}
    reader = ShardReader(listing.options({}))
    with reader.open(member.source, member.kind, member.position, member.size) as handle:
        assert handle.read(4) == b"RIFF"
    again = list_inputs((f"{server}/s.tar?X-Amz-Signature=other",), {}, None, "/nowhere")
    assert [entry.id for entry in again.entries] == [member.id]


def test_a_server_that_is_overloaded_is_asked_again_and_what_is_not_there_is_not(server: str) -> None:
    assert Place(f"{server}/busy/content").open().read(8) == CONTENT[:8]
    with pytest.raises(FileNotFoundError):
        Place(f"{server}/nothing").open()
    assert WithoutRanges.asked["/nothing"] <= 2


def test_a_host_that_is_not_there_is_no_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refused() -> None:
        tries.append(1)
        raise FileNotFoundError("http://127.0.0.1:9/x") from ConnectionRefusedError(111, "refused")

    monkeypatch.setattr("audiomill.storage.fs._FIRST_DELAY_S", 0.001)
    with pytest.raises(ConnectionError):
        retried(refused)
    assert len(tries) > 1
