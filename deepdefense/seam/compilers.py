"""Mark functions of this library, to tell the frameworks' compilers how to treat them.

The package `deepdefense` imports no framework, so it cannot use the frameworks' own decorators.
Instead, it sets the attribute that such a decorator would set, which other frameworks ignore.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from deepdefense.errors import InputError

__all__ = ["exempt_from_autograph", "traced_as_constant"]

Function = TypeVar("Function", bound=Callable[..., Any])

# AutoGraph would replace an `InputError` by an exception of its own with a longer message. It
# leaves exceptions that have this attribute unchanged.
InputError.ag_pass_through = True  # type: ignore[attr-defined]


def exempt_from_autograph(*functions: Callable[..., Any]) -> None:
    """Keep TensorFlow's AutoGraph from rewriting the given functions and the functions they call.

    For a class, this exempts `__call__` of its instances, but no other method. AutoGraph rewrites
    Python's `if` and `while` on tensors. `deepdefense` contains no `if` or `while` on tensors, so
    rewriting its functions would only slow down the first call. A user's model may contain them, so
    the TensorFlow backend lets AutoGraph rewrite the model.

    `tf.autograph.experimental.do_not_convert` sets the same attribute.
    """
    for function in functions:
        function.autograph_info__ = {}  # type: ignore[attr-defined]


def traced_as_constant(function: Function) -> Function:
    """Make `torch.compile` call the function once, while tracing, and treat the result as constant.

    This is for functions that `torch.compile` cannot trace. The decorator
    `torch.compiler.assume_constant_result` sets the same attribute.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
