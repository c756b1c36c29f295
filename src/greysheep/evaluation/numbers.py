"""Numbers as tables and sentences show them."""

from __future__ import annotations

import math
from numbers import Real

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def number(value: object) -> float:
    """The value as a float; NaN for anything that is not a number."""
    return float(value) if isinstance(value, Real) else math.nan


def decimal(value: float, places: int = 4) -> str:
    """A number for a table; a dash where there is none."""
    return f"{value:.{places}f}" if math.isfinite(value) else DASH


def short(value: object, places: int = 4) -> str:
    """A number without the zero before its point; a hyphen where there is none.

    >>> short(0.25), short(1.0, 2), short(float("nan"), 4)
    ('.2500', '1.00', '-')
    """
    known = number(value)
    if not math.isfinite(known):
        return "-"
    text = f"{known:.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.4f}".replace("-", MINUS) if math.isfinite(value) else DASH


def percent(share: float, places: int = 0, *, sign: bool = False) -> str:
    """A share as a percentage.

    >>> percent(0.614), percent(0.031, 1), percent(0.0456, 1, sign=True)
    ('61 %', '3.1 %', '+4.6 %')
    """
    if not math.isfinite(share):
        return DASH
    text = f"{100 * share:+.{places}f}" if sign else f"{100 * share:.{places}f}"
    return text.replace("-", MINUS) + " %"


def p_value(value: float) -> str:
    """A p value to three digits.

    >>> p_value(0.0123), p_value(1.0), p_value(1e-9)
    ('p .012', 'p 1', 'p < .001')
    """
    if not math.isfinite(value):
        return f"p {DASH}"
    if value < 0.001:
        return "p < .001"
    return "p 1" if value > 0.9995 else f"p {value:.3f}".replace("0.", ".", 1)


def seconds(value: object) -> str:
    r"""Seconds with as many digits as they are worth; a dash for none or zero: nothing was trained.

    >>> seconds(0.0004), seconds(0.046), seconds(3.21), seconds(1623.4), seconds(0.0)
    ('<0.01', '0.05', '3.2', '1623', '\u2013')
    """
    wall = number(value)
    if not math.isfinite(wall) or wall <= 0:
        return DASH
    if wall < 0.01:
        return "<0.01"
    return f"{wall:.0f}" if wall >= 100 else f"{wall:.1f}" if wall >= 1 else f"{wall:.2f}"


def duration(wall: float) -> str:
    """Seconds in the unit a reader would use.

    >>> duration(0.004), duration(0.26), duration(12.4), duration(1620.0), duration(9000.0)
    ('less than 0.01 s', '0.26 s', '12 s', '27 min', '2.5 h')
    """
    if not math.isfinite(wall):
        return DASH
    if wall < 0.01:
        return "less than 0.01 s"
    if wall < 100:
        return f"{wall:.0f} s" if wall >= 10 else f"{wall:.1f} s" if wall >= 1 else f"{wall:.2f} s"
    return f"{wall / 60:.0f} min" if wall < 5970 else f"{wall / 3600:.1f} h"
