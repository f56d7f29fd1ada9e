"""A complete backend in one file, as a third party would write it, for HIPS autograd.

deepdefense recognises a framework by the type of its arrays, but autograd uses NumPy's arrays. So
this backend defines the type `Tensor`. While autograd records operations, it wraps arrays in boxes.
"""

from __future__ import annotations

from contextlib import nullcontext

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.tracer import getval

# einops finds frameworks among the subclasses of this class, and has no public way to add one.
from einops._backends import AbstractBackend

from deepdefense import Backend
from deepdefense.seam.validation import check_indices

__all__ = ["BACKEND", "Adapter", "Tensor"]


class Tensor(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array or an autograd box, with operators that call functions of `autograd.numpy`."""

    def __init__(self, data):
        self.data = data
        self.shape, self.dtype = np.shape(getval(data)), np.asarray(getval(data)).dtype

    def __array_ufunc__(self, ufunc, method, *values):
        return getattr(xp, ufunc.__name__)(*values) if method == "__call__" else NotImplemented

    def __getitem__(self, key):
        return Tensor(self.data[key])

    def __len__(self):
        return self.shape[0]


def unwrap(value):
    """Return the array or autograd box in a tensor; return any other value unchanged."""
    return value.data if isinstance(value, Tensor) else value


def to_array(value):
    """Return the NumPy array in a tensor, taken out of its autograd box if it has one."""
    return getval(unwrap(value))


class _Namespace:
    """The functions of `autograd.numpy`, which take and return a `Tensor` here."""

    def __getattr__(self, name):
        function = getattr(anp, name)
        return lambda *values: Tensor(function(*map(unwrap, values)))


xp = _Namespace()


class _Einops(AbstractBackend):
    framework_name = "autograd"

    def is_appropriate_type(self, tensor):
        return isinstance(tensor, Tensor)

    def is_float_type(self, x):
        return x.dtype.kind == "f"

    reshape = staticmethod(xp.reshape)
    transpose = staticmethod(xp.transpose)
    tile = staticmethod(xp.tile)
    einsum = staticmethod(xp.einsum)
    add_axis = staticmethod(xp.expand_dims)

    def reduce(self, x, operation, axes):
        return getattr(xp, operation)(x, axes)


class Adapter(Backend):
    """The operations of the contract (`deepdefense.Backend`) in autograd."""

    name = "autograd"
    xp = xp

    def asarray(self, value, like):
        return Tensor(np.asarray(unwrap(value)))

    def to_numpy(self, x):
        return np.array(to_array(x))

    def is_concrete(self, x):
        return True

    def index(self, labels, depth, like):
        indices = np.asarray(to_array(labels))
        check_indices(indices.dtype.kind in "iu", indices.dtype, indices, depth)
        return Tensor(indices.astype(np.int64))

    def one_hot(self, index, depth, like):
        return Tensor(np.eye(depth, dtype=like.dtype)[index.data])

    def rank(self, scores, count):
        return Tensor(np.argsort(-to_array(scores), axis=1, kind="stable")[:, :count])

    def stop_gradient(self, x):
        return Tensor(to_array(x))

    def inference(self, model):
        return nullcontext(model)

    def vjp(self, f, x, *, twice=True):
        pull, logits = make_vjp(lambda data: unwrap(f(Tensor(data))))(x.data)

        def gradient(cotangent):
            # For logits that do not depend on x, autograd returns float64 zeros, so cast them.
            pulled = Tensor(pull(unwrap(cotangent)).astype(x.dtype))
            return pulled if twice else self.stop_gradient(pulled)

        return Tensor(logits), gradient

    def softmax_cross_entropy(self, logits, labels):
        z = logits.data - np.max(to_array(logits), 1, keepdims=True)
        is_label = self.one_hot(labels, z.shape[1], logits).data
        return Tensor(anp.log(anp.sum(anp.exp(z), 1)) - anp.sum(z * is_label, 1))


BACKEND = Adapter()
