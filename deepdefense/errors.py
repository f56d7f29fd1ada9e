"""What is raised for unfit input, what is warned of, and the errors of others in one line."""

import re

__all__ = ["InputError", "ProbabilityWarning", "first_line_of", "flatten_message"]

COLOUR = re.compile(r"\x1b\[[\d;]*m")  # as terminals are told it; Keras does
LONG = 240


class InputError(ValueError):
    """What was expected, what came and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """

    # TensorFlow's AutoGraph would raise an error of its own with a longer message instead.
    ag_pass_through = True


class ProbabilityWarning(UserWarning):
    """A model returns probabilities where logits are meant: distances then come out wrong."""


def first_line_of(error: Exception) -> str:
    """What an error says first, or the name of its class where it says nothing.

    >>> first_line_of(ValueError("sizes differ:\\n2 and 3")), first_line_of(KeyError())
    ('sizes differ:', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def flatten_message(error: Exception) -> str:
    """All that an error says, or the name of its class; the end is cut off where it is long.

    >>> flatten_message(ValueError("in layer fc1:\\n\\x1b[1msizes differ\\x1b[0m"))
    'in layer fc1: sizes differ'
    """
    said = " ".join(COLOUR.sub("", str(error)).split())
    return (said if len(said) <= LONG else f"{said[:LONG]} ...") or type(error).__name__
