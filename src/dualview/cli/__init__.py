"""The `dualview` command. Each sub-command is one small module of this package with `HELP`, `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from dualview import __version__
from dualview.errors import DualViewError


def command_modules() -> dict[str, str]:
    """Sub-command name -> module name, found by looking into this package (`import_weights.py` is `import-weights`)."""
    return {m.name.replace("_", "-"): f"{__name__}.{m.name}" for m in pkgutil.iter_modules(__path__)
            if not m.name.startswith("_")}  # fmt: skip


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of `dualview`; with `only`, just that sub-command is imported, so `--help` and start-up stay quick."""
    parser = argparse.ArgumentParser(prog="dualview", description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=f"dualview {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module_name in sorted(command_modules().items()):
        if only in (None, name):
            module = importlib.import_module(module_name)
            command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP, where nobody else has a use for them, end a command as Ctrl-C does: what it began to write is cleared away."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in numbers:  # a closed terminal says so twice: let the clearing up be
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: returns the exit status; errors that we raise on purpose are printed as one sentence."""
    arguments = sys.argv[1:] if arguments is None else arguments
    only = arguments[0] if arguments and arguments[0] in command_modules() else None
    parsed = build_parser(only).parse_args(arguments)
    try:
        with ending_in_order():
            status = int(parsed.run(parsed) or 0)
            sys.stdout.flush()
            return status
    except DualViewError as error:
        print(f"dualview {parsed.command}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough (`| head`); nothing more can be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
