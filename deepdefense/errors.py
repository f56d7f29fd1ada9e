"""The exceptions and warnings of this package, and functions that shorten error messages."""

import re

__all__ = ["InputError", "ProbabilityWarning", "first_line_of", "flatten_message"]

ANSI_COLOUR = re.compile(r"\x1b\[[\d;]*m")
MAX_LENGTH = 240


class InputError(ValueError):
    """Invalid input.

    The message says in one line what was expected, what was passed, and what to do.
    """


class ProbabilityWarning(UserWarning):
    """A model returned probabilities, not logits, so distances to decision boundaries are wrong."""


def first_line_of(error: Exception) -> str:
    """Return the first line of an error's message, or its class name if the message is empty.

    >>> first_line_of(ValueError("sizes differ:\\n2 and 3")), first_line_of(KeyError())
    ('sizes differ:', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def flatten_message(error: Exception) -> str:
    """Return an error's message on one line, shortened and without terminal colours.

    If the message is empty, return the name of the error's class.

    >>> flatten_message(ValueError("in layer fc1:\\n\\x1b[1msizes differ\\x1b[0m"))
    'in layer fc1: sizes differ'
    """
    text = " ".join(ANSI_COLOUR.sub("", str(error)).split())
    return (text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} ...") or type(error).__name__
