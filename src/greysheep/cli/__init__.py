"""The command `greysheep`: arguments in, tables out; everything else is the public Python API.

Exit code 0 = done, 2 = a mistake that the user can correct, one line on stderr says which, 3 = some runs of
`compare` failed (the results of the others are written), 130 = interrupted, 141 = the reader of a pipe left,
143 = ended by SIGTERM.
Torch and the data frames are imported inside the commands, so that `--help` answers at once.
"""

import io
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, TextIO

import typer

from greysheep.cli import (
    audit,
    compare,
    compile,
    data,
    demo,
    doctor,
    evaluate,
    fit,
    logs,
    serve,
    tune,
    update,
)
from greysheep.errors import GreysheepError, GreysheepWarning
from greysheep.system.machine import own_version
from greysheep.system.signals import TERMINATED, terminate

app = typer.Typer(
    name="greysheep",
    help="Recommenders for users whose taste few others share, measured user group by user group.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands: list[Callable[..., None]] = [demo.demo, logs.mainstream, logs.split, fit.fit, evaluate.evaluate]
commands += [evaluate.recommend, update.update, audit.audit, compare.compare, tune.tune]
commands += [compile.compile, serve.serve, doctor.doctor]
for command in commands:
    app.command()(command)
app.add_typer(data.app, name="data")

# typer exports only this one of its usage errors; the class they all share is found through it, because its
# own home moved from click to typer between versions.
_CommandLineError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"greysheep {own_version()}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command on `arguments` and return the exit code; nothing but a bug raises.

    Examples:
        >>> from greysheep.cli import run
        >>> run(["--version"])
        greysheep ...
        0
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", GreysheepWarning)
        warnings.showwarning = _show_warning
        try:
            code = app(list(arguments), prog_name="greysheep", standalone_mode=False)
        except GreysheepError as error:
            return _mistake(str(error))
        except _CommandLineError as error:
            return _usage_mistake(error)
        except SystemExit as end:
            if end.code == TERMINATED:
                return TERMINATED
            # Typer's way to say that the reader of a pipe left (`| head`); it has silenced stdout already.
            return 128 + 13
        except OSError as error:  # a full disk, as a rule
            where = "" if error.filename is None else f"{error.filename}: "
            return _mistake(f"{where}{error.strerror or error}")
        except (KeyboardInterrupt, typer.Abort):
            code = 130
    if code == 130:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the installed command."""
    signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the console lacks become question marks
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def _mistake(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _usage_mistake(error: BaseException) -> int:
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "greysheep"
    return _mistake(f"{message.rstrip('.')}; see {where} --help")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = str(message) if issubclass(category, GreysheepWarning) else f"{message} ({filename}:{lineno})"
    print("warning:", " ".join(text.split()), file=file or sys.stderr)
