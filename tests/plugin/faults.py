"""Variants of the autograd adapter with one fault each, which the conformance kit must find."""

from __future__ import annotations

import numpy as np
from autograd import numpy as anp
from deepdefense_autograd import Adapter, Tensor


class Long(Adapter):
    """An adapter whose gradients are 1 % too long."""

    def vjp(self, f, x, *, twice=True):
        logits, pull = super().vjp(f, x, twice=twice)
        return logits, lambda cotangent: 1.01 * pull(cotangent)


class Once(Adapter):
    """An adapter whose gradients cannot be differentiated a second time."""

    def vjp(self, f, x, *, twice=True):
        return super().vjp(f, x, twice=False)


class Ties(Adapter):
    """An adapter that ranks equal scores by the highest index first, instead of the lowest."""

    def rank(self, scores, count):
        return Tensor(np.argsort(scores.data, axis=1, kind="stable")[:, ::-1][:, :count])


class Thaw(Adapter):
    """An adapter whose `iterate` changes inactive examples while another example is active."""

    def iterate(self, body, state, fixed, active, *, steps, differentiable=False):
        for _ in range(steps):
            if not np.any(active.data):
                break
            state, going = body(state, fixed)
            active = active & going
        return state


class Overflow(Adapter):
    """An adapter whose cross-entropy overflows, since it does not subtract the largest logit."""

    def softmax_cross_entropy(self, logits, labels):
        is_label = self.one_hot(labels, logits.shape[1], logits).data
        z = logits.data
        return Tensor(anp.log(anp.sum(anp.exp(z), 1)) - anp.sum(z * is_label, 1))
