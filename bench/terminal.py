"""A terminal that nobody looks at, so that progress bars are drawn as for a user without filling the screen."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def opened() -> tuple[int, int]:
    """Both ends of a pseudo-terminal as wide as a window: one without a size has no columns to draw a bar in."""
    import termios  # not on Windows

    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (40, 120))
    return reader, writer


@contextmanager
def pretended() -> Iterator[None]:
    """Standard output and error of this process lead into a pseudo-terminal that is read and thrown away.

    Where there are none (Windows) they lead nowhere, and bars are drawn as into a file.
    """
    try:
        reader, writer = opened()
    except (AttributeError, ImportError, OSError):
        reader, writer = -1, os.open(os.devnull, os.O_WRONLY)
    drain = threading.Thread(target=_read_all, args=(reader,), daemon=True)
    if reader >= 0:
        drain.start()
    kept = [os.dup(number) for number in (1, 2)]
    streams = sys.stdout, sys.stderr
    _flush()
    for number in (1, 2):
        os.dup2(writer, number)
    # Under a test runner sys.stdout is not file 1, so that both are replaced.
    sys.stdout, sys.stderr = (open(number, "w", closefd=False, encoding="utf-8") for number in (1, 2))  # noqa: SIM115
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = streams
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(writer)
        if reader >= 0:
            drain.join(timeout=5)
            os.close(reader)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _read_all(reader: int) -> None:
    """Until the other side is closed, which Linux reports as an error."""
    try:
        while os.read(reader, 65536):
            pass
    except OSError:
        return
