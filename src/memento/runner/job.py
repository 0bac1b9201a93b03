"""One experiment, run: the same body wherever it runs, and a process of its own to run it in.

``python -m memento.runner.job`` reads a job from standard input, or from the file named, and runs
it. Standard input is also a lifeline: when it closes, whoever started the job is gone, and the job
stops. So nothing that is killed leaves work behind that nobody waits for.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from memento.errors import LockedError, MementoError, SettingError
from memento.runner import registry
from memento.runner.results import BEAT, Attempt, Place, Status, forget_checkpoints, status
from memento.runner.spec import Experiment, Run

__all__ = ["GRACE", "Job", "Outcome", "execute", "main", "thread_environment"]

GRACE = 10.0  # seconds that a body has to end after it was asked to
_EXITS = {"done": 0, "failed": 1, "elsewhere": 3, "interrupted": 4}
#: Called with how much is done, of how much, and a note.
OnReport = Callable[[float, float, str], object]
_NOISY = ("asyncio", "distributed", "fsspec", "matplotlib", "numba", "PIL", "urllib3")


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``"done"``, ``"failed"``, ``"interrupted"``, or ``"elsewhere"``: another process
            runs this very experiment.
        error: Why, in one line.
        ran: False where the experiment was done already.
    """

    state: Literal["done", "failed", "elsewhere", "interrupted"]
    error: str = ""
    ran: bool = True

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"state": self.state, "error": self.error, "ran": self.ran}


@dataclass(frozen=True)
class Job:
    """An experiment, where its results go, and how it is to be run.

    Args:
        experiment: With all of the user's settings applied.
        digest: Of the experiment with its needs.
        root: Folder of all results; absolute.
        needs: Digests of the experiments needed, by key.
        threads: For numerical libraries.
        forced_at: Unix time; a result begun before does not count. None: any result counts.
        debug: Whether the log holds messages of level DEBUG.
    """

    experiment: Experiment
    digest: str
    root: Path
    needs: Mapping[str, str] = field(default_factory=dict, hash=False)
    threads: int = 1
    forced_at: float | None = None
    debug: bool = False

    @property
    def key(self) -> str:
        """``"group/name"``."""
        return self.experiment.key

    @property
    def place(self) -> Place:
        """Where its results go."""
        return Place(self.root, self.experiment.group, self.experiment.name)

    def status(self) -> Status:
        """Where it stands."""
        return status(self.place, self.digest)

    def settled(self, found: Status) -> bool:
        """Whether a status means that nothing is left to do."""
        return found.state == "done" and not self.outdated(found)

    def outdated(self, found: Status) -> bool:
        """Whether ``--force`` came after what was found."""
        return self.forced_at is not None and not found.started >= self.forced_at

    def document(self) -> dict[str, Any]:
        """The job as JSON; `from_document` reads it."""
        return {
            "experiment": self.experiment.document(),
            "digest": self.digest,
            "root": str(self.root),
            "needs": dict(self.needs),
            "threads": self.threads,
            "forced_at": self.forced_at,
            "debug": self.debug,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Job:
        """The job that `document` wrote down."""
        return cls(
            **{
                **document,
                "experiment": Experiment.from_document(document["experiment"]),
                "root": Path(document["root"]),
            }
        )


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that bound the threads of numerical libraries.

    They count only for a process that has not started yet: most libraries read them once.

    Example:
        >>> thread_environment(2)["NUMBA_NUM_THREADS"]
        '2'
    """
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "RAYON")
    found = {f"{name}_NUM_THREADS": str(threads) for name in names}
    return {**found, "POLARS_MAX_THREADS": str(threads), "VECLIB_MAXIMUM_THREADS": str(threads)}


def execute(
    job: Job,
    where: str,
    *,
    own_process: bool = False,
    echo: bool = False,
    captured: bool = True,
    on_report: OnReport | None = None,
) -> Outcome:
    """Run a job unless it is done or runs already.

    Args:
        job: What to run.
        where: The place, for people; the process and the host are added.
        own_process: Whether this process runs nothing else: then all its output goes to the log.
        echo: Otherwise: whether output is shown as well as logged.
        captured: Otherwise: whether output goes to the log, and what the body raises as well. If
            not, both are left alone.
        on_report: Called with what the body reports of its progress.

    Returns:
        How it ended. What a captured body raises is no error of this function: the log holds it.

    Raises:
        ForeignError: The folder of results holds something else.
        StorageError: The folder cannot be made or written.
    """
    place = job.place
    place.check_ours()
    try:
        with place.lock():
            found = job.status()
            if job.settled(found):
                return Outcome("done", ran=False)
            if found.state == "running":  # on a host that this file system's locks do not reach
                return Outcome("elsewhere")
            if job.outdated(found):
                forget_checkpoints(place)
            where = f"{where}, process {os.getpid()} on {socket.gethostname()}"
            attempt = Attempt(place, job.experiment.document(), job.digest, where)
            attempt.begin()
            with contextlib.ExitStack() as around:
                if captured:
                    log = around.enter_context(place.log.open("a", encoding="utf-8", buffering=1))
                    capture = _own_output(log) if own_process else _shared_output(log, echo)
                    around.enter_context(capture)
                    around.enter_context(_logging(job.debug))
                pulse = around.enter_context(_Pulse(attempt, own_process, on_report))
                return _attempt(job, attempt, pulse, captured)
    except LockedError:
        return Outcome("elsewhere")


def _attempt(job: Job, attempt: Attempt, pulse: _Pulse, captured: bool) -> Outcome:
    """Run the body of an experiment once, and keep what it made if it ends well."""
    logger = logging.getLogger("memento.runner")
    logger.info("%s, attempt %d, %d thread(s)", job.key, attempt.number, job.threads)
    try:
        run = Run(attempt.output, attempt.checkpoint, _folders(job), job.threads, pulse.report)
        _call(job.experiment, run)
        attempt.commit(job.experiment.paths())
    except KeyboardInterrupt:
        attempt.interrupt()
        logger.warning("interrupted")
        return Outcome("interrupted", "interrupted")
    except BaseException as error:
        lines = str(error).strip().splitlines()
        summary = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        attempt.fail(summary)
        if not captured:
            raise
        traceback.print_exception(error.with_traceback(_of_body(error)))
        return Outcome("failed", summary)
    logger.info("done")
    return Outcome("done")


def _call(experiment: Experiment, run: Run) -> None:
    """Import the body and call it."""
    function = load_body(experiment.body)
    parameters = experiment.document()["parameters"]
    try:
        inspect.signature(function).bind(run, **parameters)
    except TypeError as error:
        raise SettingError(
            f"{experiment.body} takes {inspect.signature(function)}, and the experiment gives run "
            f"and {', '.join(parameters) or 'no parameters'}: {error}"
        ) from error
    function(run, **parameters)


def load_body(body: str) -> Callable[..., object]:
    """The function that ``"module:function"`` or ``"file.py:function"`` names.

    Raises:
        SettingError: There is no such module or function.
    """
    module_name, _, name = body.rpartition(":")
    if module_name.endswith(".py"):
        module = registry.load_file(Path(module_name))
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only the module itself: what it fails to import has a better message of its own.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise SettingError(f"body {body!r}: there is no module {error.name!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise SettingError(f"body {body!r}: {module_name} has no function {name!r}")
    return function


def _folders(job: Job) -> dict[str, Path]:
    """Results of the experiments needed."""
    found = {}
    for key, digest in job.needs.items():
        group, _, name = key.partition("/")
        where = status(Place(job.root, group, name), digest)
        if where.state != "done" or where.output is None:
            raise SettingError(f"{job.key} needs {key}, which is {where.state}; run that first")
        found[key] = where.output
    return found


def _of_body(error: BaseException) -> Any:
    """The trace from the body on; ours says nothing about what went wrong there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace or error.__traceback__


class _Pulse:
    """A thread that gives signs of life and listens for a request to stop."""

    def __init__(self, attempt: Attempt, obeys: bool, on_report: OnReport | None) -> None:
        self._attempt = attempt
        self._on_report = on_report
        self._obeys = obeys
        self._progress: tuple[float, float, str] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pulse", daemon=True)

    def report(self, done: float, total: float, note: str) -> None:
        self._progress = (done, total, note)
        self._attempt.beat(self._progress)
        if self._on_report is not None:
            self._on_report(done, total, note)

    def __enter__(self) -> _Pulse:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        waited = 0.0
        while not self._ended.wait(1.0):
            waited += 1.0
            if waited >= BEAT:
                waited = 0.0
                self._attempt.beat(self._progress)
            if self._obeys and self._attempt.place.stop.exists():
                os.kill(os.getpid(), signal.SIGINT)
                self._obeys = False


# --- output ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _own_output(log: TextIO) -> Iterator[None]:
    """Everything that this process and its children print goes to the log."""
    kept = [os.dup(1), os.dup(2)]
    _flush()
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    try:
        yield
    finally:
        _flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextlib.contextmanager
def _shared_output(log: TextIO, echo: bool) -> Iterator[None]:
    """What Python prints goes to the log, and on to where it would have gone if wanted."""
    out, err = (_Tee(log, stream if echo else None) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class _Tee(io.TextIOBase):
    def __init__(self, log: TextIO, other: TextIO | None) -> None:
        self._streams = [log] if other is None else [log, other]

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


@contextlib.contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Messages of all loggers go to standard error, which is the log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, level = logging.getLogger(), logging.getLogger().level
    handler.addFilter(lambda record: record.levelno > 10 or record.name.split(".")[0] not in _NOISY)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


# --- a process of its own ----------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the job in the file named, or read from standard input, in this process.

    Returns:
        0 done, 1 failed, 3 another process runs it, 4 interrupted. One line of JSON on standard
        output says the same.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    outcome = Outcome("interrupted", "interrupted")
    try:
        text = Path(arguments[0]).read_text() if arguments else sys.stdin.readline()
        if not text:
            return _EXITS["interrupted"]  # the starter was killed before it could say what to do
        if not arguments:
            _hold_lifeline()
        document = json.loads(text)
        where = document.pop("where")
        if "SLURM_JOB_ID" in os.environ:
            where = f"{where}, job {os.environ['SLURM_JOB_ID']}"
        outcome = execute(Job.from_document(document), where, own_process=True)
    except KeyboardInterrupt:
        pass
    except MementoError as error:
        outcome = Outcome("failed", f"{type(error).__name__}: {error}")
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(outcome.document()) + "\n")
        sys.stdout.flush()
    return _EXITS[outcome.state]


def _interrupted(number: int, frame: object) -> None:
    # Once: a second signal must not keep the first from being written down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _hold_lifeline() -> None:
    """End with the process at the other end of standard input.

    The body gets an empty standard input instead, so that nothing it starts takes part in this.
    """
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(lifeline, 4096):
                pass
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(GRACE)
        os._exit(_EXITS["interrupted"])  # the body does not listen; seen as killed

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
