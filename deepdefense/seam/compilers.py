"""Marks that tell the frameworks' compilers how to treat functions of this library.

The core imports no framework, so each mark is the attribute that the framework's own decorator
sets. A framework that does not know the attribute traces the function as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from deepdefense.errors import InputError

__all__ = ["exempt_from_autograph", "traced_as_constant"]

Function = TypeVar("Function", bound=Callable[..., Any])

# AutoGraph replaces an exception by its own, with a longer message, unless it has this attribute.
InputError.ag_pass_through = True  # type: ignore[attr-defined]


def exempt_from_autograph(*functions: Callable[..., Any]) -> None:
    """Make TensorFlow's AutoGraph leave these functions, and all that they call, unchanged.

    For a class this means calls of its objects (`__call__`), not its other methods. The mark is
    that of `tf.autograph.experimental.do_not_convert`. AutoGraph rewrites Python's control flow on
    tensors, of which the core has none, and the rewriting slows down the first call. A user's model
    may have some: the TensorFlow backend converts the model.
    """
    for function in functions:
        function.autograph_info__ = {}  # type: ignore[attr-defined]


def traced_as_constant(function: Function) -> Function:
    """Make `torch.compile` call the function while it traces, and treat the result as constant.

    The mark is that of `torch.compiler.assume_constant_result`. It is for functions that cannot be
    traced.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
