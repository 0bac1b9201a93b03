"""A web server on this machine that misbehaves on request.

A path has bytes and a script: one behaviour for each request, the last one for all that follow.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import google_crc32c


@dataclass
class Resource:
    """What a path answers."""

    body: bytes
    script: list[Behaviour] = field(default_factory=list)
    digests: tuple[str, ...] = ("crc32c", "md5")
    etag: str | None = None

    @property
    def tag(self) -> str:
        return self.etag or f'"{hashlib.md5(self.body).hexdigest()}"'

    def headers(self, of: bytes | None = None) -> dict[str, str]:
        body = self.body if of is None else of
        crc = google_crc32c.Checksum()
        crc.update(body)
        sums = {"crc32c": crc.digest(), "md5": hashlib.md5(body).digest()}
        found = {"ETag": self.tag, "Content-Length": str(len(self.body))}
        if self.digests:
            items = (f"{name}={base64.b64encode(sums[name]).decode()}" for name in self.digests)
            found["x-goog-hash"] = ",".join(items)
        return found


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    counted = False

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, resource = self.server, self.server.files.get(self.path)
        with server.lock:
            server.requests.append((self.command, self.path, self.headers.get("Range")))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            self.counted = True
            behave: Behaviour = serve
            if resource is None:
                resource, behave = Resource(b""), status(404)
            elif resource.script and self.command == "GET":
                behave = resource.script.pop(0) if len(resource.script) > 1 else resource.script[0]
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                behave(self, resource)
        finally:
            self.leave()
            self.close_connection = True

    def leave(self) -> None:
        """Before the last byte goes out: a client that has it may ask for the next file at once."""
        with self.server.lock:
            self.server.at_once -= self.counted
            self.counted = False

    def head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        if self.command == "HEAD" or headers.get("Content-Length") == "0":
            self.leave()
        self.end_headers()

    def put(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        for start in range(0, len(data), 16_384):
            if self.server.pause:
                time.sleep(self.server.pause)
            if start + 16_384 >= len(data):
                self.leave()
            self.wfile.write(data[start : start + 16_384])
            self.server.sent += min(16_384, len(data) - start)


Behaviour = Callable[[Handler, Resource], None]


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; notes ``requests`` (method, path, Range)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Resource] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.lock = threading.Lock()
        self.sent = 0
        self.at_once = self.most_at_once = 0
        self.pause = 0.0

    def handle_error(self, *args: object) -> None:
        pass  # clients of ours hang up; that is what is tested

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Behaviours.


def serve(handler: Handler, resource: Resource) -> None:
    """As a good server: ranges of the same version, else everything."""
    headers, wanted = resource.headers(), handler.headers.get("Range")
    match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
    size = len(resource.body)
    if match and handler.headers.get("If-Range") == resource.tag:
        start = int(match[1])
        if start >= size:
            handler.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        headers["Content-Length"] = str(size - start)
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        handler.head(206, headers)
        handler.put(resource.body[start:])
    else:
        handler.head(200, headers)
        handler.put(resource.body)


def status(code: int, **headers: str) -> Behaviour:
    def behave(handler: Handler, resource: Resource) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.head(code, {"Content-Length": "0"} | named)

    return behave


def cut(after: int) -> Behaviour:
    """Hangs up after some bytes of the body."""

    def behave(handler: Handler, resource: Resource) -> None:
        headers, start = resource.headers(), 0
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        size = len(resource.body)
        if match:
            start = int(match[1])
            headers["Content-Length"] = str(size - start)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        handler.head(206 if match else 200, headers)
        handler.put(resource.body[start : start + after])

    return behave


def whole(handler: Handler, resource: Resource) -> None:
    """Knows no ranges."""
    handler.head(200, resource.headers())
    handler.put(resource.body)


def other_bytes(handler: Handler, resource: Resource) -> None:
    """The digest of the file, and other bytes of the same number."""
    handler.head(200, resource.headers())
    handler.put(bytes(byte ^ 1 for byte in resource.body))


def length(more: int) -> Behaviour:
    """Says a length that is not that of the body."""

    def behave(handler: Handler, resource: Resource) -> None:
        size = str(len(resource.body) + more)
        handler.head(200, resource.headers() | {"Content-Length": size})
        handler.put(resource.body)

    return behave


def empty(handler: Handler, resource: Resource) -> None:
    """Nothing, without a digest, as a server in trouble does."""
    handler.head(200, {"Content-Length": "0"})


def drip(handler: Handler, resource: Resource) -> None:
    """A byte now and then."""
    handler.head(200, resource.headers())
    for byte in resource.body:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


def drip_head(handler: Handler, resource: Resource) -> None:
    """A head that comes byte by byte and does not end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(500):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def silence(handler: Handler, resource: Resource) -> None:
    """A head and then nothing."""
    handler.head(200, resource.headers())
    time.sleep(1.0)


def changes(body: bytes, after: int) -> Behaviour:
    """Hangs up after some bytes; from then on there is another version."""

    def behave(handler: Handler, resource: Resource) -> None:
        cut(after)(handler, resource)
        resource.body = body

    return behave


def chunked(*, broken: bool = False, digests: bool = True) -> Behaviour:
    """No length in advance."""

    def behave(handler: Handler, resource: Resource) -> None:
        headers = resource.headers()
        del headers["Content-Length"]
        if not digests:
            headers.pop("x-goog-hash", None)
        handler.head(200, headers | {"Transfer-Encoding": "chunked"})
        for start in range(0, len(resource.body), 5000):
            piece = resource.body[start : start + 5000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if broken:
                return
        handler.wfile.write(b"0\r\n\r\n")

    return behave


def until_closed(*, digests: bool) -> Behaviour:
    """Neither a length nor chunks: the end is where the line is cut."""

    def behave(handler: Handler, resource: Resource) -> None:
        headers = resource.headers()
        del headers["Content-Length"]
        if not digests:
            headers.pop("x-goog-hash", None)
        handler.head(200, headers)
        handler.put(resource.body)

    return behave


def endless(handler: Handler, resource: Resource) -> None:
    """Bytes for ever."""
    handler.head(200, {"ETag": '"endless"'})
    while True:
        handler.wfile.write(b"0,1,2\n" * 2000)


def wrong_range(handler: Handler, resource: Resource) -> None:
    """As many bytes as were asked for, from another place."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    size = len(resource.body)
    count = size - (int(match[1]) if match else 7)
    headers = resource.headers() | {"Content-Range": f"bytes 7-{6 + count}/{size}"}
    handler.head(206, headers | {"Content-Length": str(count)})
    handler.put(resource.body[7 : 7 + count])


def packed(handler: Handler, resource: Resource) -> None:
    """Compressed, though it was not asked for."""
    handler.head(200, resource.headers() | {"Content-Encoding": "gzip"})
    handler.put(resource.body)


def redirect(location: str, code: int = 302) -> Behaviour:
    return status(code, Location=location)
