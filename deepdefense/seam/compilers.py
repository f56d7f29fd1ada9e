"""Decorators that tell the frameworks' compilers how to treat functions of this library.

The package `deepdefense` imports no framework. So each decorator here sets the same attribute on a
function as the framework's own decorator. Other frameworks ignore the attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from deepdefense.errors import InputError

__all__ = ["exempt_from_autograph", "traced_as_constant"]

Function = TypeVar("Function", bound=Callable[..., Any])

# AutoGraph would replace an `InputError` by an exception of its own with a longer message. It does
# not replace exceptions with this attribute.
InputError.ag_pass_through = True  # type: ignore[attr-defined]


def exempt_from_autograph(*functions: Callable[..., Any]) -> None:
    """Keep TensorFlow's AutoGraph from rewriting these functions and the functions they call.

    For a class, this exempts `__call__` of its instances, but no other method. AutoGraph rewrites
    Python's `if` and `while` on tensors. `deepdefense` does not use them, and rewriting it would
    slow down the first call. A user's model may use them, so the TensorFlow backend lets AutoGraph
    rewrite the model. The attribute is that of `tf.autograph.experimental.do_not_convert`.
    """
    for function in functions:
        function.autograph_info__ = {}  # type: ignore[attr-defined]


def traced_as_constant(function: Function) -> Function:
    """Make `torch.compile` call the function once, while tracing, and treat the result as constant.

    This is for functions that `torch.compile` cannot trace. The attribute is that of
    `torch.compiler.assume_constant_result`.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
