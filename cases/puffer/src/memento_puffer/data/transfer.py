"""One file over HTTP, from servers and lines that fail: resumed, bounded in time, and proved.

Bytes go to a part file beside the target. They are a file only once their number and their digest
are what the server said. Everything here that fails for a while is tried again, with pauses that
grow; everything that a server can drag out has an end.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import email.utils
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import urllib3

from memento.arguments import Count, NotNegative, Positive, check_fields
from memento.errors import MementoError, SpaceError
from memento.files import atomic_write, storage_errors, sync_folder

__all__ = ["AbsentError", "Clock", "Entity", "FailedError", "Part", "Patience", "Web"]

_BLOCK = 1 << 18
_GAIN = 1 << 20  # an attempt that brings this much forward does not count as a failed one
_REDIRECTS = 5
_MOST_CONNECTIONS = 64
_MOVED = (301, 302, 303, 307, 308)
# Google's storage says 403 instead of 404 where strangers may not list what there is.
_ABSENT = (403, 404, 410)
_PASSING = (408, 425, 429)


class AbsentError(MementoError):
    """The server has no such file."""


class FailedError(MementoError):
    """A file could not be had, and asking again at once would not help."""


class StoppedError(MementoError):
    """Another thread met what ends the whole run."""


class _AgainError(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, pause: float | None = None, code: int | None = None) -> None:
        super().__init__(reason)
        self.pause = pause
        self.code = code


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Clock:
    """Where time comes from, so that a test need not wait.

    Args:
        now: The time of day, with a time zone.
        monotonic: Seconds that never go back.
        sleep: Waits for some seconds; None waits, but wakes when the run is stopped.
    """

    now: Callable[[], dt.datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Patience:
    """How long to wait for what. All in seconds unless said otherwise, all above 0.

    Args:
        connect: Longest wait for a connection.
        read: Longest wait for the next bytes of an answer.
        answer: Longest time that the head of an answer may take.
        least_rate: Bytes per second, the mean over ``window``; what is slower is cut and resumed.
        window: Over which the rate is taken.
        attempts: Number of attempts per file, in a row without a gain of 1 MiB; at least 1.
        first_pause: Pause before the second attempt. It doubles with each; a random half of it is
            left out, so that many clients do not come back together.
        longest_pause: What pauses grow to at most.
        longest_retry_after: A server that asks for a longer pause is given up.
        largest: Number of bytes that a table may have.
        late: A day that ended no longer ago may still be published.
        poll: Between two questions for such a day.
        wait: How long to go on asking for it; 0 asks once.

    Raises:
        SettingError: A number out of its range.
    """

    connect: Positive = 15.0
    read: Positive = 30.0
    answer: Positive = 60.0
    least_rate: NotNegative = 10_000.0
    window: Positive = 30.0
    attempts: Count = 6
    first_pause: NotNegative = 1.0
    longest_pause: Positive = 60.0
    longest_retry_after: Positive = 600.0
    largest: Count = 64 << 30
    late: NotNegative = 3 * 86_400.0
    poll: Positive = 600.0
    wait: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Entity:
    """What a server says of a file before its bytes.

    Attributes:
        url: Where it was asked for.
        size: Bytes; None if the server does not say.
        etag: Its version, with quotes; None if there is none.
        md5, crc32c: Hexadecimal, of its content; None if the server does not say.
    """

    url: str
    size: int | None = None
    etag: str | None = None
    md5: str | None = None
    crc32c: str | None = None

    @classmethod
    def of(cls, url: str, headers: Any, size: int | None) -> Entity:
        """From the head of an answer."""
        sums: dict[str, str | None] = {"md5": None, "crc32c": None}
        # Of a file that the server unpacks on the way, the sums are those of the packed one.
        if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
            for line in headers.getlist("x-goog-hash"):
                for item in line.split(","):
                    name, _, value = item.strip().partition("=")
                    if name in sums:
                        sums[name] = _hexadecimal(value, 16 if name == "md5" else 4)
        return cls(url, size, headers.get("ETag"), **sums)

    @property
    def provable(self) -> bool:
        """Whether the bytes can be told from others."""
        return self.md5 is not None or self.crc32c is not None

    @property
    def resumable(self) -> bool:
        """Whether a part of it can be told from a part of another version (RFC 9110, 8.8.3)."""
        return bool(self.size) and self.etag is not None and not self.etag.startswith("W/")


def _hexadecimal(text: str, length: int) -> str | None:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data.hex() if len(data) == length else None


class _Sums:
    """SHA-256, and what the server gives: MD5, or CRC-32C where that alone is given."""

    def __init__(self, entity: Entity) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._expected = entity.md5 or entity.crc32c
        self._name = "MD5" if entity.md5 else "CRC-32C"
        self._theirs: Any = None
        if entity.md5:
            self._theirs = hashlib.md5(usedforsecurity=False)
        elif entity.crc32c:
            self._theirs = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self.sha256.update(block)
        if self._theirs is not None:
            self._theirs.update(block)

    def fault(self) -> str | None:
        """What is wrong with the bytes, if the server said enough to tell."""
        found = self._theirs.digest().hex() if self._theirs is not None else None
        if found == self._expected:
            return None
        return f"{self._name} is {found} and should be {self._expected}"


class Part:
    """The bytes of a file so far, and beside them what the server said of the whole.

    The note is written before the first byte and removed after the last, so that a part never
    meets the note of another version.

    Args:
        target: Where the whole file will be; its folder exists.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.part.json")
        self._ours = False

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def held(self, url: str) -> Entity | None:
        """Of what the bytes are a part; None if they are of no use and everything is to come."""
        try:
            content = json.loads(self.note.read_bytes())
            entity = Entity(**content)
            size = self.size
            fits = entity.url == url and entity.resumable and 0 < size <= (entity.size or 0)
        except (OSError, ValueError, TypeError, AttributeError):
            return None  # no note, or one that was damaged
        if not fits:
            return None
        # After a power cut a part may hold zeros. Only a digest would show it.
        return entity if self._ours or entity.provable else None

    def begin(self, entity: Entity) -> None:
        """Forget all bytes; those of another version are to come."""
        with storage_errors("begin a download", self.target):
            self.discard()
            atomic_write(self.note, json.dumps(asdict(entity)).encode())
            self._ours = True

    def discard(self) -> None:
        """Remove the bytes, then the note."""
        with storage_errors("remove a partial download", self.path):
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)

    def sums(self, entity: Entity) -> _Sums:
        """Of the bytes so far, as they are on the disk."""
        sums = _Sums(entity)
        with storage_errors("read a partial download", self.path):
            if self.path.exists():
                with self.path.open("rb") as file:
                    while block := file.read(_BLOCK):
                        sums.update(block)
        return sums

    def finish(self) -> None:
        """Wait until the bytes are on the disk, then give the file its name."""
        with storage_errors("finish a download", self.target):
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.path, self.target)
            self.note.unlink(missing_ok=True)
            sync_folder(self.target.parent)


class Web:
    """Asks servers, patiently. Many threads may share one.

    Proxies are taken from the environment, as everywhere in Python.

    Args:
        patience: How long to wait for what.
        clock: Where time comes from.
        stop: Set by whoever ends the run; everything here then ends with StoppedError.
    """

    def __init__(
        self, patience: Patience, clock: Clock | None = None, stop: threading.Event | None = None
    ) -> None:
        self.patience = patience
        self.clock = clock or Clock()
        self.stop = stop or threading.Event()
        self._choosing = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def exists(self, url: str, rng: np.random.Generator) -> bool:
        """Whether a server has a file.

        Raises:
            FailedError: It does not say, however often it is asked.
        """
        tries = 0
        while True:
            try:
                with self._open_answer(url, {}, "HEAD"):
                    return True
            except AbsentError:
                return False
            except _AgainError as trouble:
                tries = self._pause_before_next(url, trouble, tries, rng)

    def fetch(
        self,
        url: str,
        part: Part,
        rng: np.random.Generator,
        *,
        largest: int,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> tuple[Entity, str]:
        """Bring a file whole into its part file.

        Args:
            url: Of http or https.
            part: Where it goes; what it holds of the same version is kept.
            rng: Of the random share of pauses.
            largest: Bytes that the file may have.
            progress: Called with the bytes so far and in all (None: unknown) after every block.

        Returns:
            What the server said of it, and its SHA-256 in hexadecimal.

        Raises:
            AbsentError: There is no such file.
            FailedError: It cannot be had; the message says why. A part that is of use stays.
            StoppedError: The run was ended.
            SpaceError, StorageError: The disk is full, or refuses.
        """
        tries, furthest = 0, part.size
        try:
            while True:
                try:
                    return self._attempt_fetch(url, part, largest, progress)
                except _AgainError as trouble:
                    if part.size >= furthest + _GAIN:
                        tries, furthest = 0, part.size
                    tries = self._pause_before_next(url, trouble, tries, rng)
        except (AbsentError, FailedError):
            if part.held(url) is None:
                part.discard()
            raise

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run is stopped.

        Raises:
            StoppedError: It is.
        """
        if self.clock.sleep is not None:
            self.clock.sleep(seconds)
        else:
            self.stop.wait(seconds)
        self._check_stop()

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError("the run was stopped")

    def _pause_before_next(
        self, url: str, trouble: _AgainError, tries: int, rng: np.random.Generator
    ) -> int:
        """Wait before the next attempt; returns how many there were."""
        patience, tries = self.patience, tries + 1
        if tries >= patience.attempts:
            raise FailedError(f"{url}: {trouble}; gave up after {tries} attempts") from trouble
        pause = min(patience.longest_pause, patience.first_pause * 2.0 ** min(tries - 1, 60))
        pause *= rng.uniform(0.5, 1.0)
        if trouble.pause is not None:
            if trouble.pause > patience.longest_retry_after:
                raise FailedError(
                    f"{url}: {trouble}, and to be asked again in {trouble.pause:,.0f} s only; "
                    "repeat the call then"
                ) from trouble
            pause = max(pause, trouble.pause)
        self.sleep(pause)
        return tries

    def _attempt_fetch(
        self,
        url: str,
        part: Part,
        largest: int,
        progress: Callable[[int, int | None], None] | None,
    ) -> tuple[Entity, str]:
        """One attempt: take what is missing, and compare the whole with its digest."""
        self._check_stop()
        held = part.held(url)
        if held is not None and part.size == held.size:
            entity, sums = held, part.sums(held)  # a run was ended just before the last step
        else:
            entity, sums = self._receive_rest(url, part, held, largest, progress)
        fault = sums.fault()
        if fault:
            part.discard()
            raise _AgainError(f"damaged on the way: {fault}")
        return entity, sums.sha256.hexdigest()

    def _receive_rest(
        self,
        url: str,
        part: Part,
        held: Entity | None,
        largest: int,
        progress: Callable[[int, int | None], None] | None,
    ) -> tuple[Entity, _Sums]:
        """Ask for what is missing and take it, until the answer ends."""
        headers = {}
        if held is not None and held.etag is not None:
            headers = {"Range": f"bytes={part.size}-", "If-Range": held.etag}
        try:
            response = self._open_answer(url, headers)
        except _AgainError as trouble:
            if trouble.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.discard()
            raise
        with response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise FailedError(
                    f"{url}: came as {response.headers['Content-Encoding']}, which was not asked "
                    "for; a proxy on the way may do that"
                )
            entity = self._fitted_part(url, part, held, response)
            sums = part.sums(entity)
            if entity.size is not None:
                _check_room(part, entity.size - sums.size)
            self._copy_body(url, response, part, entity, sums, largest, progress)
        if entity.size is not None and sums.size != entity.size:
            raise _AgainError(f"cut off after {sums.size:,} of {entity.size:,} bytes")
        if entity.size is None and not response.chunked and not entity.provable:
            raise _AgainError("the answer says neither its length nor its digest")
        if sums.size == 0 and not entity.provable:
            raise _AgainError("the answer is empty, and no digest says that it should be")
        return entity, sums

    def _fitted_part(self, url: str, part: Part, held: Entity | None, response: Any) -> Entity:
        """Make the part fit the answer: go on with it, or begin again."""
        headers = response.headers
        if response.status == http.client.OK:
            size = headers.get("Content-Length")
            whole = int(size) if size is not None and size.isdecimal() else None
            entity = Entity.of(url, headers, None if response.chunked else whole)
            part.begin(entity)
            return entity
        if response.status != http.client.PARTIAL_CONTENT or held is None:
            raise FailedError(f"{url}: answered {response.status}; expected 200")
        wanted = f"bytes {part.size}-{(held.size or 0) - 1}/{held.size}"
        found = headers.get("Content-Range", "nothing")
        same = Entity.of(url, headers, held.size)
        for name in ("etag", "md5", "crc32c"):
            if getattr(same, name) not in (None, getattr(held, name)):
                found = f"another version, {name} {getattr(same, name)}"
        if found != wanted:
            part.discard()
            raise _AgainError(f"asked for {wanted} and got {found}")
        return held

    def _copy_body(
        self,
        url: str,
        response: Any,
        part: Part,
        entity: Entity,
        sums: _Sums,
        largest: int,
        progress: Callable[[int, int | None], None] | None,
    ) -> None:
        """Take the bytes of an answer in, as far as they come."""
        patience, clock = self.patience, self.clock
        if (entity.size or 0) > largest:
            raise FailedError(f"{url}: has {entity.size:,} bytes; at most {largest:,} are taken")
        with storage_errors("write the download", part.path):
            file = part.path.open("ab", buffering=0)
        with file:
            since, before = clock.monotonic(), sums.size
            while True:
                self._check_stop()
                try:
                    # At most one read of the socket, so that a slow server cannot hold it.
                    block = response.read1(_BLOCK)
                except (OSError, urllib3.exceptions.HTTPError) as error:
                    raise _AgainError(
                        f"broke off after {sums.size:,} bytes: {_reason_of(error)}"
                    ) from error
                if not block:
                    return
                if sums.size + len(block) > largest:
                    raise FailedError(f"{url}: does not end; at most {largest:,} bytes are taken")
                with storage_errors("write the download", part.path):
                    rest = memoryview(block)
                    while rest:
                        rest = rest[file.write(rest) :]
                sums.update(block)
                if progress is not None:
                    progress(sums.size, entity.size)
                now = clock.monotonic()
                if now - since >= patience.window:
                    if sums.size - before < patience.least_rate * (now - since):
                        raise _AgainError(
                            f"slower than {patience.least_rate:,.0f} bytes/s after "
                            f"{sums.size:,} bytes"
                        )
                    since, before = now, sums.size

    def _open_answer(self, url: str, headers: dict[str, str], method: str = "GET") -> Any:
        """An answer of 2xx, its head read."""
        place, timeout = url, urllib3.Timeout(self.patience.connect, self.patience.read)
        headers = headers | {"Accept-Encoding": "identity", "User-Agent": "memento-replay"}
        for _ in range(_REDIRECTS + 1):
            self._check_stop()
            try:
                response = self._pools_for(place).urlopen(
                    method, place, headers=headers, timeout=timeout, retries=False, redirect=False,
                    preload_content=False, decode_content=False, enforce_content_length=False,
                )  # fmt: skip
            except (OSError, urllib3.exceptions.HTTPError) as error:
                if isinstance(error.args[0] if error.args else None, ssl.SSLCertVerificationError):
                    raise FailedError(
                        f"{url}: the server cannot prove who it is ({_reason_of(error)})"
                    ) from error
                raise _AgainError(f"no answer: {_reason_of(error)}") from error
            if 200 <= response.status < 300:
                return response
            with response:
                if response.status not in _MOVED or "Location" not in response.headers:
                    raise _error_of(url, response, self.clock.now())
                place = _next_place(url, place, response.headers["Location"])
        raise FailedError(f"{url}: sent on more than {_REDIRECTS} times")

    def _pools_for(self, url: str) -> urllib3.PoolManager:
        """Connections to a server, or to the proxy that the environment names for it."""
        parts = urllib.parse.urlsplit(url)
        around = urllib.request.proxy_bypass(parts.netloc)
        proxy = None if around else urllib.request.getproxies().get(parts.scheme)
        with self._choosing:
            if proxy not in self._pools:
                self._pools[proxy] = _timed_manager(proxy, self.patience.answer)
            return self._pools[proxy]


def _next_place(url: str, place: str, location: str) -> str:
    """Where a server sends on to: http or https, and never from https to http."""
    try:
        following = urllib.parse.urljoin(place, location)
        old, new = urllib.parse.urlsplit(place), urllib.parse.urlsplit(following)
    except ValueError as error:
        raise FailedError(f"{url}: sent on to {location[:100]!r}, no address ({error})") from error
    if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
        raise FailedError(
            f"{url}: sent on from {old.scheme} to {following[:100]!r}; only http and https are "
            "followed, and https only to https"
        )
    # Whatever the header holds has to be one line of plain characters.
    return urllib.parse.quote(following, safe="%/:=&?~#+!$,;'@()*[]")


def _error_of(url: str, response: Any, now: dt.datetime) -> Exception:
    """What an answer other than 2xx means."""
    code, said = response.status, f"answered {response.status} {response.reason}".strip()
    if code in _ABSENT:
        return AbsentError(f"{url}: {said}")
    if code in _PASSING or code >= 500:
        return _AgainError(said, _retry_after(response.headers.get("Retry-After"), now), code)
    if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _AgainError(said, None, code)
    return FailedError(f"{url}: {said}")


def _retry_after(text: str | None, now: dt.datetime) -> float | None:
    """Seconds that a server asks to wait: a number of them, or a date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    return max(0.0, (when - now).total_seconds())


def _check_room(part: Part, needed: int) -> None:
    with storage_errors("look for room", part.path):
        free = shutil.disk_usage(part.path.parent).free
    if free < needed:
        raise SpaceError(
            f"{part.target.name} needs {needed:,} more bytes and {part.path.parent} has {free:,}; "
            "free some space and repeat: what is there already is kept"
        )


def _reason_of(error: BaseException | str) -> str:
    return str(error) or type(error).__name__


class _Timed:
    """What both kinds of connection do besides: the head of an answer comes within a limit."""

    answer: float
    sock: socket.socket | None

    def getresponse(self) -> Any:
        # Every byte of a head may come just in time; the head as a whole must, too.
        timer = threading.Timer(self.answer, _close_socket, (self.sock,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()


def _timed_manager(proxy: str | None, answer: float) -> urllib3.PoolManager:
    """Pools of connections whose answers have their heads within ``answer`` seconds."""
    manager = urllib3.PoolManager(maxsize=_MOST_CONNECTIONS)
    if proxy:
        place = urllib3.util.parse_url(proxy if "//" in proxy else f"http://{proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=place.auth) if place.auth else None
        address = place._replace(auth=None).url
        manager = urllib3.ProxyManager(address, proxy_headers=headers, maxsize=_MOST_CONNECTIONS)
    pools: dict[str, Any] = manager.pool_classes_by_scheme
    for scheme, pool in pools.items():
        timed = type("Timed", (_Timed, pool.ConnectionCls), {"answer": answer})
        manager.pool_classes_by_scheme = manager.pool_classes_by_scheme | {
            scheme: type("TimedPool", (pool,), {"ConnectionCls": timed})
        }
    return manager


def _close_socket(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
