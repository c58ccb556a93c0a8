"""The one error that a user can mend, and the one that they cannot.

A `UserError` is a single line that says what was wrong with the input and what would be right; the
command line prints it without a traceback and exits with 2. A `RunError` is the same for what the
user could not have known (out of memory, NaN activations): exit 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmoprobeError(Exception):
    """Base of both; `exit_code` is what the command line leaves with."""

    exit_code = 1


class UserError(EmoprobeError):
    """The input can be changed by the user: one line, exit code 2."""

    exit_code = 2


class RunError(EmoprobeError):
    """Something failed while running: one line, exit code 1; what was done is kept."""

    exit_code = 1


def near(name: str, known: Iterable[str], n: int = 3) -> str:
    """`'; did you mean a, b?'`, or the whole list where nothing is near."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=n, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?"
    return f"; known: {', '.join(options)}" if options else ""
