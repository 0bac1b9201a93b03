"""Entry point of the command line: the groups of commands, and how errors reach the user."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from memento.errors import MementoError

if TYPE_CHECKING:
    import typer

__all__ = ["application", "main"]

FAILED, WRONG_USE = 1, 2


def application() -> typer.Typer:
    """The whole command line as a Typer application, for embedding and for tests."""
    import typer

    import memento
    from memento.cli import datacenter, demo, memory, puffer, report, run

    app = typer.Typer(
        name="memento",
        help="Keeps the samples of a stream that matter and says when to retrain.",
        no_args_is_help=True,
        add_completion=False,
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
    ) -> None:
        # `main` reads --debug itself: it has to know when anything goes wrong. So the option may
        # stand anywhere, also behind a command.
        del version, debug

    app.add_typer(memory.app, name="memory")
    app.add_typer(puffer.app, name="puffer")
    app.add_typer(datacenter.app, name="datacenter")
    app.command()(demo.demo)
    app.command()(run.run)
    app.command()(report.report)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done; 1 unexpected failure; 2 wrong use, bad input or a storage problem; 10 from
    `memento memory status --decide` when retraining is due. `memento puffer deploy run` says more
    with codes of its own; `memento run` and `memento datacenter` end with 130 or 143 when a signal
    stopped them.

    Args:
        arguments: Words after the name of the program; those of the process if left out.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        import rich
        import typer
    except ModuleNotFoundError as error:
        print(
            f"the command line needs the package {error.name!r}, which is not installed: "
            'pip install "memento-replay[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(WRONG_USE) from None
    del rich, typer
    debug = _debugging(arguments)
    news = _show_news_of_kernels()
    try:
        application()([word for word in arguments if word != "--debug"], prog_name="memento")
    except MementoError as error:
        if debug:
            raise
        _complain(" ".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        raise SystemExit(WRONG_USE) from None
    except Exception as error:
        if debug:
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


def _debugging(arguments: list[str]) -> bool:
    import os

    return "--debug" in arguments or os.environ.get("MEMENTO_DEBUG", "") not in ("", "0")


def _complain(message: str) -> None:
    print(f"memento: {message}", file=sys.stderr)
