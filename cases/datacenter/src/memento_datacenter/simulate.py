"""Packet-level simulations of message senders that share a bottleneck, with ns-3.

    3 x 20 senders ──┐
                     ├── router A ══ bottleneck ══ router B ── receiver
    cross traffic ───┘

``simulation.cc`` beside this file is the simulation. It is compiled against an installed ns-3 when
it is first needed, and runs as a program of its own: one process for each run. It lies inside the
package, so that it is there however the package was installed.

What a run is follows section 5 and appendix C of the Memento paper; ns-3 is described in Riley and
Henderson, "The ns-3 Network Simulator", 2010.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento import arguments
from memento.arguments import Expected, check_fields, one_of, require, whole
from memento.errors import ForeignError, MementoError, SettingError, StorageError
from memento.files import digest, storage_errors
from memento.study import difference
from memento_datacenter.schema import COLUMNS, Run, Runs
from memento_datacenter.workloads import Workload, published

__all__ = [
    "SETTINGS",
    "Network",
    "Ns3",
    "Program",
    "Setting",
    "build",
    "find_ns3",
    "run_numbers",
    "settings",
    "simulate",
]

SETTINGS = tuple(
    f"{workload}{cross}" for cross in ("", "_c100", "_c133") for workload in ("w1", "w2", "w3")
)
# The load of the bottleneck in a setting's name, and the cross traffic's share of the link's rate.
_CROSS = {"": 0.0, "c100": 1 / 3, "c133": 2 / 3}
_SOURCE = Path(__file__).with_name("simulation.cc")
_MODULES = ("applications", "point-to-point", "internet", "network", "core")
# The language that ns-3's headers are written in, by the release from which on.
_STANDARDS = {"3.45": "c++23", "3.43": "c++20", "3.36": "c++17"}
_COMPILERS = ("g++", "c++", "clang++")
_INSTALL = (
    "as root on Debian or Ubuntu: `apt-get install --no-install-recommends libns3-dev g++`; "
    "without root, on 64-bit Linux: "
    "`pip install --no-deps ns3==3.44.post0`, and a C++ compiler"
)
_RECORD = np.dtype([(name, kind) for name, (kind, _, _) in COLUMNS.items()])
_SEEDS = 4294944443  # ns-3's generator, MRG32k3a, takes seeds from 1 up to below this
_RUNS = 2**32  # numbers of runs; settings have distinct ranges of them
_RANGES = 2**18  # so many, since substreams of a stream are apart up to number 2**51


def _between(least: float, most: float) -> Expected:
    return arguments.number(least, most, words=f"a number from {least:g} to {most:g}")


@dataclass(frozen=True)
class Network:
    """What all runs of a study have in common.

    The defaults are the paper's. It does not give the size of the cross traffic's packets: 1,054
    bytes are ns-3's usual 1,024 bytes of payload with their headers.

    Args:
        messages: What becomes of a message larger than the free send buffer (128 KiB): "buffered"
            lets it wait, "refused" drops it, as the paper's published data does.
        senders: Applications, each on a host of its own; up to 4,000.
        link_rate: Of every link, in bit/s.
        link_delay: Of every link, in seconds.
        queue: Packets that every transmit queue holds.
        segment: TCP payload of a full packet in bytes.
        load: Mean rate in bit/s that the messages of all senders offer.
        cross_packet: Bytes of a packet of the cross traffic on the link.
        start: Seconds; when the first senders and the cross traffic start.
        end: Seconds.
        start_window: Seconds from ``start`` in which senders start, at uniform times; None for up
            to the end. The longer it is, the more a sender offers while it is active, so that all
            offer ``load`` on average: ``load / senders`` if all start at once, twice as much if
            they start up to the end.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> Network(messages="refused", end=10.0).active_rate
        2000000.0
    """

    messages: Annotated[str, one_of(("buffered", "refused"))] = "buffered"
    senders: Annotated[int, whole(1, 4000)] = 20
    link_rate: Annotated[float, _between(1e3, 1e12)] = 30e6
    link_delay: Annotated[float, _between(0, 10)] = 0.005
    queue: Annotated[int, whole(1, 10**6)] = 100
    segment: Annotated[int, whole(1, 1446)] = 1446
    load: Annotated[float, _between(1, 1e12)] = 20e6
    cross_packet: Annotated[int, whole(31, 1502)] = 1054
    start: Annotated[float, _between(0, 1e6)] = 1.0
    end: Annotated[float, _between(0, 1e6)] = 60.0
    start_window: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.start < self.end:
            raise SettingError(
                f"start {self.start:g} s and end {self.end:g} s; the end comes after the start"
            )
        if self.start_window is not None:
            require("start_window", self.start_window, _between(0, self.end - self.start))
        for field in dataclasses.fields(self):  # equal numbers are written alike, too
            value = getattr(self, field.name)
            if "float" in str(field.type) and value is not None:
                object.__setattr__(self, field.name, float(value))

    @property
    def active_rate(self) -> float:
        """What a sender offers from its start on, in bit/s."""
        window = (self.end - self.start) if self.start_window is None else self.start_window
        active = 1 - 0.5 * window / (self.end - self.start)
        return self.load / self.senders / active


@dataclass(frozen=True)
class Setting:
    """What the senders of a run send, and against how much cross traffic.

    Attributes:
        name: Such as w1_c133.
        workload: What they send.
        cross: Rate of the cross traffic as a share of the link's.
    """

    name: str
    workload: Workload
    cross: float


def settings(
    names: Iterable[str] = SETTINGS, workloads: Mapping[str, Workload] | None = None
) -> list[Setting]:
    """Settings by their names.

    A name is that of a workload, alone or with the load of the bottleneck in per cent, which cross
    traffic raises from 66 to 100 or 133: w1, w1_c100, w1_c133.

    Args:
        names: Of the settings that are wanted.
        workloads: By name, in addition to the published ones (which they may replace).

    Raises:
        SettingError: An unknown or repeated name; the message lists those there are.

    Example:
        >>> [(setting.name, round(setting.cross, 2)) for setting in settings(["w2", "w3_c133"])]
        [('w2', 0.0), ('w3_c133', 0.67)]
    """
    known = {**published(), **(workloads or {})}
    for key, workload in known.items():
        if key != workload.name:
            raise SettingError(f"workload {workload.name!r} stands under {key!r}; use its name")
    found: dict[str, Setting] = {}
    for name in names:
        workload_name, _, load = str(name).partition("_")
        if workload_name not in known or load not in _CROSS or str(name).endswith("_"):
            there = ", ".join(f"{w}{'_' if c else ''}{c}" for w in known for c in _CROSS)
            raise SettingError(f"setting {name!r}; there are {there}")
        if name in found:
            raise SettingError(f"setting {name!r} is named twice; name it once")
        found[name] = Setting(name, known[workload_name], _CROSS[load])
    return list(found.values())


def run_numbers(text: str, name: str = "runs") -> list[int]:
    """Numbers of runs from a text such as 0-21 or 0,2-5.

    Args:
        text: Numbers and ranges with commas between.
        name: What to call them in errors.

    Raises:
        SettingError: A text of another form, a range that goes backwards, a number given twice.

    Example:
        >>> run_numbers("0,2-5")
        [0, 2, 3, 4, 5]
    """
    numbers: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last or last - first > 10**6:
            raise SettingError(f"{name} {text!r}; give numbers and ranges such as 0-21 or 0,2-5")
        numbers += range(first, last + 1)
    if len(set(numbers)) < len(numbers):
        raise SettingError(f"{name} {text!r}: a number comes twice; give each once")
    return numbers


@dataclass(frozen=True)
class Ns3:
    """An installed ns-3.

    Attributes:
        version: As 3.44.
        include: Folder that holds ns3/core-module.h.
        library: Folder of the shared libraries.
        prefix: What their names begin with, as ns3.44-.
    """

    version: str
    include: Path
    library: Path
    prefix: str


def find_ns3(root: str | Path | None = None) -> Ns3:
    """Look for ns-3: Debian's package (3.37), else the Python package's headers and libraries.

    Results differ between versions of ns-3, so every run says which one made it.

    Args:
        root: Look only here: a folder with include/ and lib/ (or lib64/), such as /usr or
            ns-3's installation prefix.

    Raises:
        MementoError: There is none; the message says how to install it.
    """
    if root is not None:
        places = [Path(root)]
    else:
        places = [Path("/usr"), Path("/usr/local")]
        with contextlib.suppress(ImportError, ValueError):
            package = importlib.util.find_spec("ns3")
            if package is not None:
                places += map(Path, package.submodule_search_locations or [])
    for place in places:
        include = place / "include"
        if not (include / "ns3" / "core-module.h").is_file():
            continue
        machine = f"{platform.machine()}-linux-gnu"
        for library in (place / "lib64", place / "lib" / machine, place / "lib"):
            for core in sorted(library.glob("libns3*-core.so")):
                prefix = core.name.removeprefix("lib").removesuffix("core.so")
                version = _version(include, prefix)
                if version is not None:
                    return Ns3(version, include.resolve(), library.resolve(), prefix)
    looked = ", ".join(map(str, places)) + (
        "" if root is not None else " and among Python packages"
    )
    raise MementoError(f"no ns-3 with headers was found in {looked}. To install it, {_INSTALL}")


def _version(include: Path, prefix: str) -> str | None:
    """From the names of the libraries, else from the header that releases since 3.32 have."""
    named = re.match(r"ns3[.-]?(3\.)?(\d\d)", prefix)
    if named:
        return f"3.{named[2]}"
    header = include / "ns3" / "version-defines.h"
    if header.is_file():
        found = dict(re.findall(r"#define NS3_VERSION_(MAJOR|MINOR) (\d+)", header.read_text()))
        if len(found) == 2:
            return f"{found['MAJOR']}.{found['MINOR']}"
    return None


@dataclass(frozen=True)
class Program:
    """The compiled simulation.

    Attributes:
        path: The executable.
        ns3: Version of ns-3 it is linked to.
        source: SHA-256 of its source.
    """

    path: Path
    ns3: str
    source: str


def build(ns3: Ns3 | None = None, cache: str | Path | None = None) -> Program:
    """Compile the simulation, unless that was done before.

    The executable is kept under a digest of its source, of ns-3's version and place, and of the
    compiler. Several processes may build at once.

    Args:
        ns3: Which ns-3; ``find_ns3()`` if None.
        cache: Folder for executables; ``memento`` in the user's cache folder if None.

    Raises:
        MementoError: No ns-3 or no C++ compiler, or the compiler fails.
        StorageError: The folder cannot be written to.
    """
    ns3 = find_ns3() if ns3 is None else ns3
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise MementoError(
            f"no C++ compiler was found (looked for {', '.join(_COMPILERS)}), which the simulation "
            "needs: install g++, such as by `apt-get install g++`"
        )
    folder = Path(cache) if cache is not None else _user_cache()
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(digest(source).encode())
    where = (ns3.version, str(ns3.include), str(ns3.library), ns3.prefix)
    key.update(json.dumps([*where, _compiler(compiler), *_flags(ns3)]).encode())
    target = folder / f"simulation-ns{ns3.version}-{key.hexdigest()[:16]}"
    if not target.is_file():
        with storage_errors("keep the compiled simulation", folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
                made = Path(scratch) / target.name
                _compile(compiler, ns3, made)
                with made.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(made, target)
    return Program(target, ns3.version, digest(source))


def _compile(compiler: str, ns3: Ns3, target: Path) -> None:
    command = [
        compiler, *_flags(ns3), str(_SOURCE), "-o", str(target),
        f"-I{ns3.include}", f"-L{ns3.library}",
        f"-Wl,-rpath,{ns3.library}", f"-Wl,-rpath-link,{ns3.library}", "-Wl,--as-needed",
        *(f"-l{ns3.prefix}{module}" for module in _MODULES),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise MementoError(
            f"{compiler} cannot compile the simulation against ns-3 {ns3.version} in "
            f"{ns3.include}: {lines[0]}; ns-3 3.37 and 3.44 are known to work: {_INSTALL}"
        )


def _flags(ns3: Ns3) -> tuple[str, ...]:
    standards = (new for since, new in _STANDARDS.items() if _order(ns3.version) >= _order(since))
    return "-O2", f"-std={next(standards, 'c++17')}"


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@functools.cache
def _compiler(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def _user_cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "memento"


def simulate(
    settings: Sequence[Setting],
    numbers: Iterable[int],
    folder: str | Path,
    network: Network | None = None,
    *,
    seed: int = 1,
    jobs: int = 1,
    program: Program | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Simulate runs into a folder; those that are there already are kept.

    Each run is written as soon as it is done, so a call that was stopped goes on where it was. A
    run depends on its setting, number, network and seed alone, not on which others there are: each
    run of each setting has a substream of its own of ns-3's generator (L'Ecuyer et al., "An
    object-oriented random-number package with many long streams and substreams", 2002); both ways
    of treating messages see the same ones.

    Args:
        settings: From the function ``settings``.
        numbers: Of the runs of each setting, from 0.
        folder: Where they go; see ``schema.Runs``.
        network: ``Network()`` if None.
        seed: From 1.
        jobs: How many processes at a time.
        program: ``build()`` if None; it is built only if a run is missing.
        progress: Called with (done, total, what was last) at the beginning and after each run.

    Returns:
        The files, setting by setting.

    Raises:
        ForeignError: A run that is there was made in another way; nothing is changed.
        DamagedError: A run that is there is damaged.
        MementoError: ns-3 or a compiler is missing, or the program fails.
        SettingError: A number, seed or number of jobs out of range.
        StorageError: The folder cannot be written to.
    """
    network = Network() if network is None else network
    require("jobs", jobs, whole())
    runs, numbers = Runs(folder), list(numbers)
    plan = [(setting, number) for setting in settings for number in numbers]
    paths = [runs.path(setting.name, number) for setting, number in plan]
    if len(set(paths)) < len(paths):
        raise SettingError("a setting or run is named twice; name each once")
    absent = {path for path in paths if not path.exists()}
    if absent and program is None:
        program = build()
    abouts = {}
    for path, (setting, number) in zip(paths, plan, strict=True):
        about = _describe(program, setting, number, network, seed)
        if path in absent:
            abouts[path] = setting, about
        else:
            _check(path, about)
    done = len(paths) - len(abouts)
    if progress is not None:
        progress(done, len(paths), "already there" if done else "")
    if program is not None and abouts:
        processes = _Processes()
        with ThreadPoolExecutor(jobs) as pool:
            waiting: dict[Future[None], Path] = {
                pool.submit(_execute, program, setting, about, processes, path): path
                for path, (setting, about) in abouts.items()
            }
            try:
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        path = waiting.pop(future)
                        future.result()
                        done += 1
                        if progress is not None:
                            progress(done, len(paths), f"{path.parent.name} {path.stem}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                processes.stop()
                raise
    return paths


class _Processes:
    """The programs that are running, so that they can be stopped."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._guard = threading.Lock()

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Run a program to its end; its exit status, output and error output."""
        # ns-3 takes defaults and logging from these, which would make other runs.
        env = {k: v for k, v in os.environ.items() if not k.startswith("NS_")}
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        with self._guard:
            if self._stopped:
                raise MementoError("stopped before it began")
            process = subprocess.Popen(
                command, stdin=none, stdout=pipe, stderr=pipe, text=True, errors="replace", env=env
            )
            self._running.add(process)
        with process:
            try:
                output, errors = process.communicate()
            except BaseException:
                process.kill()
                raise
            finally:
                with self._guard:
                    self._running.discard(process)
        return process.returncode, output, errors

    def stop(self) -> None:
        """End all that run, and let none begin."""
        with self._guard:
            self._stopped = True
            for process in self._running:
                process.kill()


def _describe(
    program: Program | None, setting: Setting, number: int, network: Network, seed: int
) -> dict[str, Any]:
    """What makes a run what it is. Two runs with equal descriptions are equal."""
    require("run", number, whole(0, _RUNS - 1))
    require("seed", seed, whole(1, _SEEDS - 1))
    about = {
        "setting": setting.name,
        "run": int(number),
        "seed": int(seed),
        "workload": setting.workload.name,
        "label": setting.workload.label,
        "sizes": setting.workload.digest,
        "mean_size": setting.workload.mean,
        "cross": setting.cross,
        "network": dataclasses.asdict(network),
    }
    if program is not None:
        about |= {"ns3": program.ns3, "source": program.source}
    return about


def _check(path: Path, about: Mapping[str, Any]) -> None:
    """Refuse a run that is there but was made in another way."""
    differs = difference(Run.describe(path), about)
    if differs is not None:
        name, there, wanted = differs
        raise ForeignError(
            f"{path}: made with {name} = {there!r}, now asked for with {wanted!r}; "
            "give another folder, or remove the runs that are there"
        )


def _execute(
    program: Program,
    setting: Setting,
    about: Mapping[str, Any],
    processes: _Processes,
    path: Path,
) -> None:
    """Run the program, and keep what came out."""
    network = Network(**about["network"])
    workload = setting.workload
    with (
        storage_errors("simulate", Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="memento-") as scratch,
    ):
        sizes, records = Path(scratch) / "sizes", Path(scratch) / "records"
        sizes.write_text(workload.table, encoding="ascii")
        values = {
            "sizes": sizes,
            "interpolate": int(workload.interpolate),
            "meanGap": repr(workload.mean * 8 / network.active_rate),
            "senders": network.senders,
            "buffered": int(network.messages == "buffered"),
            "linkRate": repr(network.link_rate),
            "linkDelay": repr(network.link_delay),
            "queue": network.queue,
            "segment": network.segment,
            "crossRate": repr(setting.cross * network.link_rate),
            "crossSize": network.cross_packet,
            "start": repr(network.start),
            "startWindow": repr(
                network.end - network.start
                if network.start_window is None
                else network.start_window
            ),
            "end": repr(network.end),
            "seed": about["seed"],
            "run": _substream(setting.name, about["run"]),
            "out": records,
        }
        command = [str(program.path), *(f"--{name}={value}" for name, value in values.items())]
        status, output, errors = processes.run(command)
        if status:
            said = (errors.strip() or output.strip()).splitlines() or ["no message"]
            raise MementoError(
                f"the simulation of {setting.name}, run {about['run']}, ended with status "
                f"{status}: {said[-1]}; if it does so again, remove {program.path} and repeat"
            )
        packets = np.fromfile(records, dtype=_RECORD)
    try:
        counters = json.loads(output)
    except (ValueError, RecursionError):
        counters = {}
    reported = counters.get("packets") if isinstance(counters, dict) else None
    if reported != len(packets):
        raise StorageError(
            f"the simulation of {setting.name}, run {about['run']}, reports "
            f"{reported} packets and wrote {len(packets):,}; is the disk full?"
        )
    columns = {name: packets[name] for name in COLUMNS}
    Run(**columns, about={**about, "counters": counters}).write(path)


def _substream(setting: str, number: int) -> int:
    """The substream of a run: settings have ranges of their own, known by a digest of the name."""
    place = int(digest(setting.encode())[:16], 16) % (_RANGES - 1) + 1
    return place * _RUNS + number
