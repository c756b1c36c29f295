"""The longer sentences of a page, which stand in `templates/sentences.txt`."""

from __future__ import annotations

import re

from greysheep.report.html import environment


def sentence(name: str, /, **values: object) -> str:
    """The text of one macro, as one line of plain text.

    >>> sentence("intervals", seeds=False)
    '95 % percentile bootstrap, 2,000 draws, users resampled within their group'
    """
    text = getattr(environment().get_template("sentences.txt").module, name)(**values)
    return re.sub(r"\s*\n\s*", " ", str(text)).strip()
