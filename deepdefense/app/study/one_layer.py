"""A variant of Deep Defense in which the penalty trains only one layer.

The paper uses this variant to compare the layers of a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepdefense.defenses.deep_defense import DeepDefense, Terms
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.settings import document_settings, setting
from deepdefense.seam.training_contract import TrainingBackend, training_backend

__all__ = ["OneLayer", "list_layers"]


def list_layers(backend: TrainingBackend, model: Any) -> list[str]:
    """Return the names of the layers with a weight matrix or kernel, in the network's order."""
    weights = backend.weights(model).items()
    return [name.rpartition(".")[0] for name, value in weights if value.ndim > 1]


@document_settings
@dataclass(frozen=True)
class OneLayer(DeepDefense):
    """Deep Defense with a penalty that has a gradient only in the parameters of `layer`.

    The cross-entropy still trains all layers.

    Source: Yan, Guo and Zhang (2018), section 4.5.
    """

    layer: str = setting("", "name of the layer, as in ``conv1.weight``", option=False)

    def terms(self, model: Model, x: Array, y: Array, strength: Array | None = None) -> Terms:
        """Return what `DeepDefense.terms` returns, with gradients only for `layer`."""
        backend = training_backend(backend_of(x, model=model).name)
        with backend.inference(model):
            return super().terms(backend.freeze_except(model, self.layer), x, y, strength)
