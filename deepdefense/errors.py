"""The one error class for input that cannot be used."""

__all__ = ["InputError"]


class InputError(ValueError):
    """What was expected, what came and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """
