"""What commands need that is not on this machine: a storage of published days, and ns-3."""

from __future__ import annotations

import ctypes
import functools
import gzip
import io
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

DAY = "2021-10-17"
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def start(words: tuple[str, ...]) -> None:
    """Bring what stands in for what a command needs; it ends with this process."""
    if stand_in := STAND_INS.get(words[:2]):
        stand_in()


def storage() -> None:
    """A storage that hangs up every 20 kB, so that each file is resumed at least twice."""
    import misbehaving as web

    from memento_puffer.data import download as case

    reading, writing = os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        os.chdir("/")  # no part of the command, so none of the processes that have to end
        with web.running() as server:
            server.pause = 0.002
            for path, body in _published().items():
                server.files[f"/{path}"] = web.Resource(body, [web.cut(20_000)])
            os.write(writing, server.url.encode())
            os.close(writing)
            signal.pause()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        url = pipe.read()
    os.environ["no_proxy"] = "127.0.0.1"
    case.DATA_URL, case.MODELS_URL = url, f"{url}/models"
    case.Patience = functools.partial(case.Patience, first_pause=0.001)


def _published() -> dict[str, bytes]:
    from memento_puffer.data.archives import MODEL_FILES
    from memento_puffer.data.layout import TABLES
    from memento_puffer.data.schema import range_of

    span = range_of(DAY)
    found = {
        f"{span}/{kind}_{span}.csv": b"time,value\n" + f"{number},{kind}\n".encode() * 4000
        for number, kind in enumerate(TABLES)
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:  # uncompressed: the same at any time
        folder = tarfile.TarInfo("bbr-20211017-1")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name in MODEL_FILES:
            entry = tarfile.TarInfo(f"bbr-20211017-1/{name}")
            entry.size = 50 * len(name)
            file.addfile(entry, io.BytesIO(name.encode() * 50))
    return found | {
        f"{span}/logs/expt_settings": b'{"0": {}}\n',
        "models/bbr-20211017-1.tar.gz": gzip.compress(archive.getvalue(), mtime=0),
    }


PROGRAM = """#!/bin/sh
for word; do case $word in --out=*) out=${word#--out=};; --run=*) run=${word#--run=};; esac; done
sleep 0.05
cp "$(dirname "$0")/records" "$out"
echo "{\\"packets\\": 100, \\"substream\\": $run}"
"""


def program(folder: Path) -> None:
    """A program that answers as the simulation does, with packets that were made up."""
    from memento_datacenter.simulate import _RECORD

    records = np.zeros(100, _RECORD)
    records["arrival_ns"], records["size"] = np.arange(100) * 10**6, 606
    records["delay_ns"] = 15_484_800
    (folder / "records").write_bytes(records.tobytes())
    (folder / "program").write_text(PROGRAM)
    (folder / "program").chmod(0o755)


def simulation() -> None:
    """The program of the current folder takes the place of the compiled simulation."""
    from memento_datacenter import simulate as case

    case.build = lambda: case.Program(Path("program").absolute(), "3.44", "")


STAND_INS: dict[tuple[str, ...], Callable[[], None]] = {
    ("puffer", "download"): storage,
    ("datacenter", "simulate"): simulation,
}
