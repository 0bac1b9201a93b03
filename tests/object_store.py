"""A store of objects and a web server on this machine, for tests of reading from elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape


class Store(http.server.BaseHTTPRequestHandler):
    """Buckets as S3 serves them to readers: objects, parts of them, and lists by prefix.

    Objects lie in ``server.objects`` by ``bucket/key``; any path is one for the web, too.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Nothing."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        path, query = unquote(address.path).lstrip("/"), parse_qs(address.query)
        self.server.asked.append((self.command, path))
        if "list-type" in query:
            return self._answer(200, self._listed(path, query), "application/xml")
        data = self.server.objects.get(path)
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
        status, further = 200, {}
        if "Range" in self.headers:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            further["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            status, data = 206, data[start : end + 1]
        return self._answer(status, data, "application/octet-stream", further)

    def _listed(self, bucket, query):
        prefix, mark = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        entries, folders = [], set()
        for name, data in sorted(self.server.objects.items()):
            home, _, key = name.partition("/")
            rest = key.removeprefix(prefix)
            if home != bucket.strip("/") or not key.startswith(prefix):
                continue
            if mark and mark in rest:
                folders.add(prefix + rest.partition(mark)[0] + mark)
                continue
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                f"<LastModified>2026-01-07T00:00:00.000Z</LastModified>"
                f"<ETag>{hashlib.md5(data).hexdigest()}</ETag></Contents>"
            )
        found = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>"
                        for f in sorted(folders))  # fmt: skip
        count = len(entries) + len(folders)
        return (
            f"<ListBucketResult><Name>{quote(bucket)}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
            f"{''.join(entries)}{found}</ListBucketResult>"
        ).encode()

    def _answer(self, status, data, kind, further=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) + self.server.promised))
        self.send_header("Last-Modified", "Wed, 07 Jan 2026 00:00:00 GMT")
        for name, value in (further or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        if self.server.promised:
            self.close_connection = True


@contextlib.contextmanager
def store(objects) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server of objects, at ``server.url``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        server.objects, server.asked, server.promised = dict(objects), [], 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
