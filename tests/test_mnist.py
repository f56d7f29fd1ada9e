"""Real data: the reference LeNet that DeepFool's authors published, on all of MNIST's test set."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepdefense as dd
from deepdefense.data import load
from deepdefense.runs import load_weights
from deepdefense.training import training_backend
from deepdefense.zoo import NETWORKS

pytest.importorskip("torch", reason="PyTorch is not installed")
MNIST = Path(__file__).parent.parent.parent / "shared" / "data" / "mnist"
pytestmark = [
    pytest.mark.only("torch"),
    pytest.mark.skipif(
        not MNIST.is_dir(), reason=f"MNIST and its reference LeNet are not in {MNIST}"
    ),
]


def test_published_lenet_has_its_published_robustness() -> None:
    """99.02 % and rho_2 = 0.2056: the protocol, preprocessing and layout are the authors'."""
    data = load("mnist", data_dir=MNIST)
    backend = training_backend("torch")
    model = backend.build(NETWORKS["lenet"]((1, 28, 28), 10))
    backend.load(model, load_weights(MNIST / "lenet_reference.safetensors"))
    report = dd.evaluate(model, data.x_test, data.y_test)
    assert report.n == 10_000
    assert report.accuracy == pytest.approx(0.9902, abs=0.0001)
    assert report.rho_2 == pytest.approx(0.2056, abs=0.0005)
    assert report.success == 1
    assert report.unmeasured == 0
