"""What the command line says of whatever goes wrong: one line."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from nfl_lora_pipeline.settings import variable

DEBUG = variable("debug")
LINE_CHARACTERS = 2_000
Say = Callable[[Any], str]


def in_one_line(error: BaseException) -> str:
    """What went wrong, and what to do.

    The nearest class of the exception that is in the table speaks for it. What none speaks for is a mistake of this program,
    and says so.
    """
    known = (SAYINGS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}") for kind in type(error).__mro__)
    say = next((each for each in known if each is not None), _unexpected)
    return " ".join(say(error).split())[:LINE_CHARACTERS]


def os_error(error: OSError) -> str:
    """File and reason."""
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(files)}: {reason}" if files else reason


def print_anything() -> None:
    """Let standard output and error take what is no text: names of files, and questions, are bytes that need not be UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_output() -> OSError | None:
    """Write out what standard output still holds. Where it cannot be, it is given up, since the interpreter would try again.

    Returns:
        Why not.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _unicode(error: UnicodeError) -> str:
    return f"not UTF-8: {error}"


def _memory(_: MemoryError) -> str:
    return "out of memory: train with smaller batches (batch_rows of the recipe), or end other programs"


def _runtime(error: RuntimeError) -> str:
    """MLX raises this class for files it cannot read, and begins with a name in brackets."""
    return str(error) if str(error).startswith("[") else _unexpected(error)


def _database(error: Any) -> str:
    reason = getattr(error, "orig", None) or error
    return f"Dagster's storage, in the folder `dagster` of the store, cannot be used: {reason}"


def _of_dagster(error: Any) -> str:
    cause = getattr(error, "user_exception", None) or error.__cause__
    return in_one_line(cause) if isinstance(cause, Exception) else f"Dagster: {_text(error)}"


def _failure(error: Any) -> str:
    return error.description or _text(error)


def _unexpected(error: BaseException) -> str:
    return f"unexpected: {type(error).__name__}: {error}; {DEBUG}=1 shows where; please report it"


# By package and class, so that no library is imported to be compared with.
SAYINGS: dict[str, Say] = {
    "builtins.ValueError": _text,
    "builtins.UnicodeError": _unicode,
    "builtins.OSError": os_error,
    "builtins.MemoryError": _memory,
    "builtins.RuntimeError": _runtime,
    "builtins.RecursionError": _unexpected,
    "builtins.NotImplementedError": _unexpected,
    "sqlite3.Error": _database,
    "sqlalchemy.SQLAlchemyError": _database,
    "alembic.CommandError": _database,
    "dagster.DagsterError": _of_dagster,
    "dagster.Failure": _failure,
    "polars.PolarsError": _text,
    "safetensors_rust.SafetensorError": _text,
    "yaml.YAMLError": _text,
}
