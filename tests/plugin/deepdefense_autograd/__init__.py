"""HIPS autograd behind the seam: a third party's whole backend, in one file.

autograd differentiates functions of NumPy's own arrays, by which a framework cannot be recognised.
So this one has a type of its own, `Tensor`: an array, or autograd's box around one.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.tracer import getval

# einops finds a framework among the subclasses of this class and offers no public way to add one.
from einops._backends import AbstractBackend

from deepdefense.errors import InputError
from deepdefense.seam.validation import check_indices

__all__ = ["BACKEND", "Adapter", "Tensor"]


class Tensor(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that autograd may be recording; every operator is a ufunc of `autograd.numpy`."""

    def __init__(self, data):
        self.data = data
        self.shape, self.dtype = np.shape(getval(data)), np.asarray(getval(data)).dtype

    def __array_ufunc__(self, ufunc, method, *values):
        return getattr(xp, ufunc.__name__)(*values) if method == "__call__" else NotImplemented

    def __getitem__(self, key):
        return Tensor(self.data[key])

    def __len__(self):
        return self.shape[0]


def bare(value):
    """What a tensor holds; anything else as it is."""
    return value.data if isinstance(value, Tensor) else value


def constant(value):
    """What a tensor holds, out of every box."""
    return getval(bare(value))


class _Namespace:
    """`autograd.numpy` on tensors."""

    def __getattr__(self, name):
        function = getattr(anp, name)
        return lambda *values: Tensor(function(*map(bare, values)))


xp = _Namespace()


class _Einops(AbstractBackend):
    framework_name = "autograd"

    def is_appropriate_type(self, tensor):
        return isinstance(tensor, Tensor)

    def is_float_type(self, x):
        return x.dtype.kind == "f"

    def reshape(self, x, shape):
        return xp.reshape(x, shape)

    def transpose(self, x, axes):
        return xp.transpose(x, axes)

    def reduce(self, x, operation, axes):
        return getattr(xp, operation)(x, axes)

    def add_axis(self, x, new_position):
        return xp.expand_dims(x, new_position)

    def tile(self, x, repeats):
        return xp.tile(x, repeats)

    def einsum(self, pattern, *x):
        return xp.einsum(pattern, *x)


class Adapter:
    """The seam in autograd."""

    name = "autograd"
    xp: Any = xp

    def asarray(self, value, like):
        return Tensor(np.asarray(bare(value)))

    def to_numpy(self, x):
        return np.array(constant(x))

    def is_concrete(self, x):
        return True

    def index(self, labels, depth, like):
        known = np.asarray(constant(labels))
        check_indices(known.dtype.kind in "iu", known.dtype, known, depth)
        return Tensor(known.astype(np.int64))

    def one_hot(self, index, depth, like):
        return Tensor(np.eye(depth, dtype=like.dtype)[index.data])

    def take(self, values, index):
        return Tensor(constant(values)[np.arange(len(index)), constant(index)])

    def rank(self, scores, count):
        return Tensor(np.argsort(-constant(scores), axis=1, kind="stable")[:, :count])

    def euclidean(self, v):
        with np.errstate(over="ignore"):
            return Tensor(np.linalg.norm(constant(v), axis=-1))

    def epsilon(self, x):
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"examples must be float32 or float64, got {x.dtype}")
        return float(np.finfo(x.dtype).eps)

    def stop_gradient(self, x):
        return Tensor(constant(x))

    def inference(self, model):
        return nullcontext(model)

    def precise(self):
        return nullcontext()

    def compiled(self, f):
        return f

    def forward(self, f, x):
        return self.stop_gradient(f(self.stop_gradient(x)))

    def class_gradients(self, f, x):
        logits, pull = self.vjp(f, self.stop_gradient(x), twice=False)

        def fold(step, state, contrasts):
            for contrast in map(Tensor, np.swapaxes(constant(contrasts), 0, 1)):
                state = step(state, contrast[:, None], pull(contrast)[:, None])
            return state

        return self.stop_gradient(logits), fold

    def vjp(self, f, x, *, twice=True):
        pull, logits = make_vjp(lambda data: bare(f(Tensor(data))))(x.data)

        def gradient(cotangent):
            pulled = Tensor(pull(bare(cotangent)).astype(x.dtype))  # autograd's zeros are float64
            return pulled if twice else self.stop_gradient(pulled)

        return Tensor(logits), gradient

    def iterate(self, body, state, fixed, active, *, steps, differentiable=False):
        for _ in range(steps):
            if not np.any(active.data):
                break
            new, going = body(state, fixed)
            state = state._make(
                xp.where(xp.reshape(active, (-1,) + (1,) * (len(a.shape) - 1)), b, a)
                for a, b in zip(state, new, strict=True)
            )
            active = active & going
        return state

    def softmax_cross_entropy(self, logits, labels):
        z = logits.data - np.max(constant(logits), 1, keepdims=True)
        own = self.one_hot(labels, z.shape[1], logits).data
        return Tensor(anp.log(anp.sum(anp.exp(z), 1)) - anp.sum(z * own, 1))


BACKEND = Adapter()
