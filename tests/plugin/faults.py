"""Adapters with one fault each, which the conformance kit must find."""

from __future__ import annotations

import numpy as np
from autograd import numpy as anp
from deepdefense_autograd import Adapter, Tensor


class Long(Adapter):
    """Gradients are one per cent too long."""

    def vjp(self, f, x, *, twice=True):
        logits, pull = super().vjp(f, x, twice=twice)
        return logits, lambda cotangent: 1.01 * pull(cotangent)


class Once(Adapter):
    """A gradient cannot be differentiated again."""

    def vjp(self, f, x, *, twice=True):
        return super().vjp(f, x, twice=False)


class Ties(Adapter):
    """Among equal scores, the last ranks first."""

    def rank(self, scores, count):
        return Tensor(np.argsort(scores.data, axis=1, kind="stable")[:, ::-1][:, :count])


class Thaw(Adapter):
    """Finished examples continue as long as any other example does."""

    def iterate(self, body, state, fixed, active, *, steps, differentiable=False):
        for _ in range(steps):
            if not np.any(active.data):
                break
            state, going = body(state, fixed)
            active = active & going
        return state


class Overflow(Adapter):
    """The cross-entropy overflows, since it takes exp of unshifted logits."""

    def softmax_cross_entropy(self, logits, labels):
        own = self.one_hot(labels, logits.shape[1], logits).data
        return Tensor(anp.log(anp.sum(anp.exp(logits.data), 1)) - anp.sum(logits.data * own, 1))
