"""The range of a number, written on its field: `patch: Annotated[int, Range(4, 64)]`.

A bound is data; utils/config.py keeps to it. The types at the end are named as in pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Interval of the numbers that a key takes; in a list each entry is checked.

    Args:
        low: lowest number, None: no bound.
        high: highest number, None: no bound.
        open_low: `low` itself is left out.
        open_high: `high` itself is left out.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def refusal(self, number: float) -> str | None:
        """Which bound a number breaks, such as "at least 4"; None where it lies within."""
        if self.low is not None and (number < self.low or (self.open_low and number == self.low)):
            return self.lower
        if self.high is not None and (number > self.high or (self.open_high and number == self.high)):
            return self.upper
        return None

    @property
    def lower(self) -> str:
        """The lower bound in words, empty where there is none."""
        return "" if self.low is None else f"{'above' if self.open_low else 'at least'} {self.low:g}"

    @property
    def upper(self) -> str:
        """The upper bound in words, empty where there is none."""
        return "" if self.high is None else f"{'below' if self.open_high else 'at most'} {self.high:g}"

    def __str__(self) -> str:
        """Both bounds: "4 to 64", "at least 1", "above 0, at most 1"."""
        if None not in (self.low, self.high) and not (self.open_low or self.open_high):
            return f"{self.low:g} to {self.high:g}"
        return ", ".join(filter(None, (self.lower, self.upper)))


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0)]
UnitInterval = Annotated[float, Range(0, 1)]
