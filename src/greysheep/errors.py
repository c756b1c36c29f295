"""Every error and warning class of the library.

Each message is one line: what is wrong, which, how many, what to do.
"""

import warnings


class GreysheepError(Exception):
    """Base class: the command turns it into one line on stderr and exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # a value shown in it may have several


class DataError(GreysheepError):
    """An interaction log, a frame or a file of ids cannot be used as it is."""


class ConfigError(GreysheepError):
    """A setting is unknown, of the wrong type or out of range."""


class NotFittedError(GreysheepError):
    """A model was asked for something it only knows after `fit`."""


class UnknownUserError(GreysheepError):
    """Recommendations were asked for users the model has never seen."""


class ModelFolderError(GreysheepError):
    """A saved model is missing, incomplete or of another format."""


class SealError(GreysheepError):
    """A file of a sealed folder is missing, foreign or not as it was written; the message names it."""


class ProcessEndedError(GreysheepError):
    """A process that was started for a job ended before it had done it."""


class ForkedProcessError(GreysheepError):
    """A forked process cannot work, as the threads of the one it was forked from are not in it."""


class ServiceError(GreysheepError):
    """A request to the service cannot be answered; `status` is the reply's HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MissingExtraError(GreysheepError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install greysheep[{extra}]")


class GreysheepWarning(UserWarning):
    """Something was dropped, ignored or defaulted; the message counts it."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to a length that fits into another message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def warn(message: str, level: int) -> None:
    """Give a GreysheepWarning; level 1 is the line that calls this, 2 its caller's, and so on."""
    warnings.warn(message, GreysheepWarning, stacklevel=level + 1)
