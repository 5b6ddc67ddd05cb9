"""Image files that cannot be used: the first one stops the run, or they are named, counted and left out."""

from __future__ import annotations

import sys
from typing import Literal

from data.images import ImageError

LARGEST_LOSS = 0.1
EXAMPLES = 3


class BadImages:
    """What was found bad so far, by path; at most a tenth of all images may be, but one always.

    Args:
        policy: "skip" counts, "error" raises the first one.
        listed: number of images that there are.
    """

    def __init__(self, policy: Literal["error", "skip"], listed: int):
        self.policy, self.listed = policy, listed
        self.found: dict[str, ImageError] = {}

    def add(self, error: ImageError, warn: bool = False) -> None:
        """Take note of a bad image; with `warn` say so on stderr, once.

        Raises:
            ImageError: this one, where bad images are errors; or there are too many.
        """
        if self.policy == "error":
            raise error
        if warn and str(error.path) not in self.found:
            print(f"warning: skipped {error}", file=sys.stderr, flush=True)
        self.found[str(error.path)] = error
        if len(self.found) > max(1, LARGEST_LOSS * self.listed) or len(self.found) == self.listed:
            reason = f"{error.reason}, and {len(self.found)} of {self.listed} images cannot be used, too many to skip"
            raise ImageError(error.path, reason, "repair or remove the files")

    def summary(self) -> str:
        """ "2 images skipped: FILE: reason; remedy | ...", empty where all are good."""
        if not self.found:
            return ""
        errors = list(map(str, self.found.values()))
        more = f" and {len(errors) - EXAMPLES} more" if len(errors) > EXAMPLES else ""
        plural = "s" if len(errors) > 1 else ""
        return f"{len(errors)} bad image{plural} skipped: {' | '.join(errors[:EXAMPLES])}{more}"
