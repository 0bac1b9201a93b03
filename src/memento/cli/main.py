"""Entry point of the command line: the groups of commands, and how errors reach the user."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memento import plugins
from memento.cli import packages, signals
from memento.cli.printing import forgiving_output
from memento.errors import MementoError, SettingError
from memento.files import local_path

if TYPE_CHECKING:
    import typer

__all__ = ["application", "main"]

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
_HELP = "Keeps the samples of a stream that matter and says when to retrain."
_INSTALL = 'pip install "memento-replay[cli]"'


def application() -> typer.Typer:
    """The whole command line as a Typer application, for embedding and for tests."""
    import typer

    import memento
    from memento.cli import backtest, deploy, memory, report, run, select
    from memento.cli.commands import Commands

    app = Commands(
        name="memento",
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(asked: bool) -> None:
        if asked:
            typer.echo(f"memento {memento.__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=show_version, is_eager=True
        ),
        debug: bool = typer.Option(
            False, "--debug", help="Show the trace of an error.", envvar="MEMENTO_DEBUG"
        ),
        modules: list[str] | None = typer.Option(  # noqa: B008 - typer is imported here only
            None,
            "--import",
            metavar="MODULE[:CLASS]",
            help="Run a module of yours first, which defines policies or distances. Repeatable.",
        ),
    ) -> None:
        # `main` reads these itself: --debug has to be known when anything goes wrong, and modules
        # before anything is loaded. So both may stand anywhere, also behind a command.
        del version, debug, modules

    app.add_typer(memory.app, name="memory")
    app.add_typer(deploy.app, name="deploy")
    app.command()(backtest.backtest)
    app.command()(select.select)
    app.command()(run.run)
    app.command()(report.report)
    taken = {"backtest", "memory", "deploy", "select", "run", "report"}
    for name, point in plugins.installed(plugins.COMMANDS).items():
        try:
            if name in taken:
                raise SettingError(f"{point.value}: there is a command {name!r} already; rename it")
            command = plugins.load(point)
        except SettingError as error:  # one broken distribution does not take the others away
            _complain(f"warning: {error}")
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done; 1 unexpected failure (of `memento select` also a lack of workers or of
    room); 2 wrong use, bad input or a storage problem; 10 from `memento memory status --decide`
    when retraining is due; 130 where Ctrl-C came before a command had begun; 143 and 129 where
    SIGTERM or SIGHUP ended it. `memento puffer deploy run` says more with codes of its own;
    `memento run` and `memento datacenter` end with 130 or 143 when a signal stopped them.

    What cannot be printed (a closed pipe, a full disk) changes neither the work nor the exit code.

    Args:
        arguments: Words after the name of the program; those of the process if left out.
    """
    with forgiving_output():
        try:
            _run(sys.argv[1:] if arguments is None else arguments)
        except KeyboardInterrupt:  # before a command has begun: they have answers of their own
            raise SystemExit(INTERRUPTED) from None


def _run(arguments: list[str]) -> None:
    """Run a command; errors of ours become a message and an exit code."""
    try:
        with signals.held_back():
            import rich
            from typer.main import get_command
    except ModuleNotFoundError as error:
        raise SystemExit(_without_commands(arguments, error.name)) from None
    del rich
    debug = _debugging(arguments)
    news = _show_news_of_kernels()
    try:
        with _warnings_in_a_line(), signals.as_before():
            signals.end_in_order()
            words, modules = _without_imports([word for word in arguments if word != "--debug"])
            for module in modules:
                plugins.named(module, f"--import {module}")
            with signals.held_back():
                command = _checking(get_command(application()))
            command(words, prog_name="memento")
    except MementoError as error:
        if debug:
            raise
        _complain(" ".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        raise SystemExit(WRONG_USE) from None
    except MemoryError as error:
        if debug:
            raise
        reason = str(error) or "no room for more"
        _complain(f"error: memory ran out: {reason}; free some, or give less at a time")
        raise SystemExit(FAILED) from None
    except BaseException as error:
        # A panic of Rust (polars, charts) is no Exception; what else is none ends the process.
        panic = type(error).__name__ == "PanicException"
        if debug or not (panic or isinstance(error, Exception)):
            raise
        _complain(f"unexpected error: {type(error).__name__}: {error}; see more with --debug")
        raise SystemExit(FAILED) from None
    finally:
        logging.getLogger(_KERNELS).removeHandler(news)


_KERNELS = "memento._kernels"


def _show_news_of_kernels() -> logging.Handler:
    """Let a line on the terminal explain a first command that waits for the compiler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("memento: %(message)s"))
    logger = logging.getLogger(_KERNELS)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


def _without_commands(arguments: list[str], package: str | None) -> int:
    """What can be said where only the library is installed; returns the exit code."""
    import memento

    if "--version" in arguments:
        print(f"memento {memento.__version__}")
        return 0
    if {"--help", "-h"} & {*arguments}:
        groups = dict.fromkeys(name.split()[0] for name in packages.COMMANDS)
        groups |= dict.fromkeys(plugins.installed(plugins.COMMANDS))
        print(
            f"memento {memento.__version__}: {_HELP}\n\n"
            f"The commands ({', '.join(groups)}) come with the extra 'cli': {_INSTALL}\n"
            "The library is complete without them: import memento"
        )
        return 0
    print(
        f"memento: the command line needs the package {package!r}, which is not installed: "
        f"{_INSTALL}",
        file=sys.stderr,
    )
    return WRONG_USE


def _checking(command: Any, words: str = "") -> Any:
    """A command of Click's that looks at its paths and packages before it begins."""
    inner = getattr(command, "commands", {})
    for name, subcommand in inner.items():
        _checking(subcommand, f"{words} {name}".strip())
    if not inner and command.callback is not None:
        command.callback = _after_check(words, command.callback)
    return command


def _after_check(words: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def checked(*values: Any, **options: Any) -> Any:
        for name, value in options.items():
            for path in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(path, Path):
                    local_path(path, name.replace("_", "-"))
        if words in packages.COMMANDS:
            packages.require(words, options)
        return callback(*values, **options)

    return checked


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings of the library as lines for users, each once, without the place in our code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show
        yield


def _debugging(arguments: list[str]) -> bool:
    import os

    return "--debug" in arguments or os.environ.get("MEMENTO_DEBUG", "") not in ("", "0")


def _without_imports(words: list[str]) -> tuple[list[str], list[str]]:
    """Words without ``--import MODULE`` wherever it stands, and the modules."""
    rest: list[str] = []
    modules: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *left], modules
        if name != "--import":
            rest.append(word)
        elif equals or ((value := next(left, "")) and not value.startswith("-")):
            modules.append(value)
        else:
            raise SettingError("--import names no module; give MODULE or MODULE:CLASS after it")
    return rest, modules


def _complain(message: str) -> None:
    from memento.cli.ui import say

    say(f"memento: {message}", err=True)
