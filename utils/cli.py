"""How the scripts end: a mistake of the user's becomes one clear line and status 2, a defect of ours a traceback."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError


def run(main: Callable[[], int], stopped: str = "stopped; continue with --resume") -> None:
    """Call `main` and leave the process with its status; `stopped` is said where the user ended it.

    SIGTERM ends a run as Ctrl-C does. The project's own errors carry a remedy, and are shown without a traceback.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        status = 130
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
        status = 2
    sys.exit(status)


def explained(error: Exception) -> str | None:
    """The message of an error that the user can mend, None for a defect of the program."""
    text = str(error)
    # What a data-loading process raises arrives with the original traceback in its text; as a RuntimeError, where the
    # error takes more than a text.
    caught = re.match(r"Caught (\w+) in DataLoader worker", text)
    if caught and caught[1] in _names_of(UserError) | {"OSError"}:
        return text.strip().splitlines()[-1].partition("Error: ")[2]
    return text if isinstance(error, UserError | OSError) else None


def _names_of(kind: type) -> set[str]:
    """Name of a class, and of all that are derived from it."""
    return {kind.__name__}.union(*map(_names_of, kind.__subclasses__()))
