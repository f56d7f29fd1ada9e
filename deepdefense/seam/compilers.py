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

# TensorFlow's AutoGraph replaces exceptions by its own, except those that have this attribute.
InputError.ag_pass_through = True  # type: ignore[attr-defined]


def exempt_from_autograph(*functions: Callable[..., Any]) -> None:
    """Keep TensorFlow's AutoGraph from rewriting the given functions and the functions they call.

    AutoGraph rewrites Python's `if` and `while` on tensors. `deepdefense` contains none of
    these, so rewriting its functions would only slow down the first call. For a class, this exempts
    `__call__` of its instances, but no other method.
    """
    for function in functions:
        function.autograph_info__ = {}  # type: ignore[attr-defined]


def traced_as_constant(function: Function) -> Function:
    """Make `torch.compile` call the function once, while tracing, and treat the result as constant.

    This is for functions that `torch.compile` cannot trace.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
