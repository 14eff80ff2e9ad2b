"""An HTTP proxy in front of a real server that throttles and drops connections, on purpose and on record."""

from __future__ import annotations

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class FaultyProxy:
    """Forwards to `upstream`; a share of requests gets 503 SlowDown, another share a closed connection.

    Args:
        upstream: URL of the real server.
        throttled: share of requests answered with 503.
        dropped: share of requests whose connection is cut, half of them in the middle of the answer.
        seed: which ones.
    """

    def __init__(self, upstream: str, throttled: float, dropped: float, seed: int = 0) -> None:
        self.num_throttled = self.num_dropped = self.num_passed = 0
        random_, lock, target = random.Random(seed), threading.Lock(), urlsplit(upstream).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    dice = random_.random()
                if dice < throttled:
                    proxy.num_throttled += 1
                    self.answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                    return
                connection = http.client.HTTPConnection(target, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
                headers = {
                    k: v
                    for k, v in response.getheaders()
                    if k.lower() not in ("connection", "transfer-encoding", "content-length")
                }
                if self.command == "HEAD":
                    headers["Content-Length"] = response.getheader("Content-Length") or "0"
                if dice < throttled + dropped:
                    proxy.num_dropped += 1
                    if dice < throttled + dropped / 2:
                        self.answer(response.status, headers, content[: len(content) // 2], len(content))
                    self.close_connection = True
                    self.connection.close()
                    return
                proxy.num_passed += 1
                self.answer(response.status, headers, content)

            def answer(self, status: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
