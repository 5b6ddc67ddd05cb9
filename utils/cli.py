"""How the scripts end: a mistake of the user's becomes one clear line and status 2, a defect of ours a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run(main: Callable[[], int]) -> None:
    """Call `main` and leave the process with its status.

    The project's own errors derive from ValueError, OSError or RuntimeError subclasses that carry a remedy; they are
    shown without a traceback.
    """
    try:
        status = main()
    except KeyboardInterrupt:
        print("stopped; continue with --run.resume true", file=sys.stderr)
        status = 130
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def is_expected(error: Exception) -> bool:
    """Whether an exception is one that this project raises with a remedy."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    return type(error) is ValueError or type(error).__module__.split(".")[0] in ("data", "models", "utils")
