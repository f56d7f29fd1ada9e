"""What frameworks' compilers are told of this library's functions.

The core imports no framework, so each mark is the attribute that the framework's own decorator
sets. Where a framework does not know it, it traces as it does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["traced_as_constant", "without_autograph"]

Function = TypeVar("Function", bound=Callable[..., Any])


def without_autograph(function: Function) -> Function:
    """A function that TensorFlow's AutoGraph leaves as it is, with all that it calls.

    Of a class, the calls of its objects (`__call__`), and not those of other methods.

    `tf.autograph.experimental.do_not_convert` marks what it returns so. Nothing here needs Python's
    control flow rewritten; when it was, the first call in a `tf.function` took five times as long.
    (A model may need it: the TensorFlow backend sees to that.)
    """
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


def traced_as_constant(function: Function) -> Function:
    """A function that `torch.compile` calls while it traces, and whose answer it keeps.

    This is `torch.compiler.assume_constant_result`, for what cannot be traced.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
