"""The one error class for input that cannot be used, and others' errors in one line."""

__all__ = ["InputError", "first_line"]


class InputError(ValueError):
    """What was expected, what came and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: Exception) -> str:
    """What an error says first, or the name of its class where it says nothing.

    >>> first_line(ValueError("sizes differ:\\n2 and 3")), first_line(KeyError())
    ('sizes differ:', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
