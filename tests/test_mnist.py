"""Tests of the LeNet that DeepFool's authors published, on the MNIST test set."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepdefense as dd
from deepdefense.app.data import load_data
from deepdefense.app.run_folder import load_weights
from deepdefense.evaluation.rho_protocol import measure_rho, summarize_rho
from deepdefense.seam.training_contract import training_backend
from deepdefense.zoo import NETWORKS

MNIST = Path(__file__).parent.parent.parent / "shared" / "data" / "mnist"
pytestmark = pytest.mark.skipif(
    not MNIST.is_dir(), reason=f"MNIST and its reference LeNet are not in {MNIST}"
)


@pytest.mark.parametrize(
    ("name", "examples", "accuracy", "rho"),
    [
        pytest.param("torch", 10_000, 0.9902, 0.2056, marks=pytest.mark.only("torch")),
        pytest.param("jax", 200, 0.99, 0.20629, marks=pytest.mark.only("jax")),
        pytest.param("tensorflow", 200, 0.99, 0.20629, marks=pytest.mark.only("tensorflow")),
    ],
)
def test_published_lenet_has_its_published_robustness(
    name: str, examples: int, accuracy: float, rho: float
) -> None:
    """With the authors' protocol and preprocessing, accuracy is 99.02 % and rho_2 is 0.2056."""
    data = load_data("mnist", data_dir=MNIST)
    weights = load_weights(MNIST / "lenet_reference.safetensors")
    model = training_backend(name).build(NETWORKS["lenet"]((1, 28, 28), 10), weights)
    x, y = data.x_test[:examples], data.y_test[:examples]
    report = summarize_rho(measure_rho(model, x, y, backend=training_backend(name)))
    assert report.n == examples
    assert report.accuracy == pytest.approx(accuracy, abs=0.0001)
    assert report.rho_2 == pytest.approx(rho, abs=0.0005 if examples == 10_000 else 0.0001)
    assert report.success == 1
    assert report.unmeasured == 0


@pytest.mark.only("torch")
def test_scale_of_real_logits_changes_no_figure_and_saturation_is_reported() -> None:
    """If logits are a thousand times as large, the cross-entropy in float32 has gradient zero."""
    import torch

    data = load_data("mnist", data_dir=MNIST)
    weights = load_weights(MNIST / "lenet_reference.safetensors")
    model = training_backend("torch").build(NETWORKS["lenet"]((1, 28, 28), 10), weights)
    x, y = data.x_test[:40], data.y_test[:40]
    bounds = (-data.mean, 255 - data.mean)

    class Scaled(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.model, self.factor = model, factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * self.model(x)

    plain, *scaled = (dd.evaluate(Scaled(f), x, y, bounds=bounds) for f in (1.0, 10.0, 1000.0))
    assert [str(c) for c in plain.checks if c.status == "fail"] == []
    for report in scaled:
        assert report.trusted
        assert report.distances == pytest.approx(plain.distances, rel=1e-2)
        assert report.distance.median == pytest.approx(plain.distance.median, rel=1e-3)
        assert report.rho_2 == pytest.approx(plain.rho_2, rel=1e-3)
        assert report.headline.robust_accuracy == plain.headline.robust_accuracy
    assert "saturation" in {c.name for c in scaled[1].checks if c.status == "fail"}
