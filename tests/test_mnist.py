"""Real data: the reference LeNet that DeepFool's authors published, on all of MNIST's test set."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepdefense as dd
from deepdefense.data import load
from deepdefense.runs import load_weights
from deepdefense.training import training_backend
from deepdefense.zoo import NETWORKS

MNIST = Path(__file__).parent.parent.parent / "shared" / "data" / "mnist"
pytestmark = pytest.mark.skipif(
    not MNIST.is_dir(), reason=f"MNIST and its reference LeNet are not in {MNIST}"
)


@pytest.mark.parametrize(
    ("name", "examples", "accuracy", "rho"),
    [
        pytest.param("torch", 10_000, 0.9902, 0.2056, marks=pytest.mark.only("torch")),
        pytest.param("jax", 1000, 0.986, 0.19601, marks=pytest.mark.only("jax")),
        pytest.param("tensorflow", 1000, 0.986, 0.19601, marks=pytest.mark.only("tensorflow")),
    ],
)
def test_published_lenet_has_its_published_robustness(
    name: str, examples: int, accuracy: float, rho: float
) -> None:
    """99.02 % and rho_2 = 0.2056: the protocol, preprocessing and layout are the authors'."""
    data = load("mnist", data_dir=MNIST)
    weights = load_weights(MNIST / "lenet_reference.safetensors")
    model = training_backend(name).build(NETWORKS["lenet"]((1, 28, 28), 10), weights)
    report = dd.evaluate(model, data.x_test[:examples], data.y_test[:examples])
    assert report.n == examples
    assert report.accuracy == pytest.approx(accuracy, abs=0.0001)
    assert report.rho_2 == pytest.approx(rho, abs=0.0005 if examples == 10_000 else 0.0001)
    assert report.success == 1
    assert report.unmeasured == 0
