"""Compare the paper's decoder, written by hand here, with automatic differentiation.

Yan, Guo and Zhang (2018), section 3.2, compute the gradient of a logit in the input by a second
network that shares the classifier's weights. It has transposed layers, ReLUs that pass the entries
that were positive in the forward pass, and unpooling to the positions of the maxima. The gradient
of the penalty in the weights is then ordinary backpropagation through both networks, without
second derivatives.
"""

from __future__ import annotations

from typing import Any

import pytest

import deepdefense as dd
from deepdefense.seam.training_contract import training_backend
from deepdefense.zoo import NETWORKS, initial_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")

SHAPES = {"lenet": (1, 28, 28), "convnet": (3, 32, 32)}


def encode(model: Any, x: Any) -> tuple[Any, list[Any]]:
    """Return logits [b k], and what the decoder needs of each layer.

    This is the shape of the layer's input, the mask of a ReLU, or the positions of the maxima.
    """
    records = []
    for layer in model:
        layer_input = x
        if isinstance(layer, torch.nn.MaxPool2d):
            x, switches = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
            records.append((layer_input.shape, switches))
        else:
            x = layer(x)
            records.append((layer_input.shape, layer_input > 0))
    return x, records


def decode(model: Any, records: list[Any], contrast: Any) -> Any:
    """Return the input gradient of <contrast, logits>, by the transposed network."""
    functional, z = torch.nn.functional, contrast
    for layer, (shape, mask) in zip(reversed(list(model)), reversed(records), strict=True):
        match layer:
            case torch.nn.Linear():
                z = z @ layer.weight
            case torch.nn.ReLU():
                z = z * mask
            case torch.nn.Flatten():
                z = z.reshape(shape)
            case torch.nn.MaxPool2d():
                z = functional.max_unpool2d(z, mask, 2, output_size=shape)
            case torch.nn.AvgPool2d():
                z = z.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
            case torch.nn.Conv2d():
                z = functional.conv_transpose2d(z, layer.weight, padding=layer.padding)
            case _:
                raise AssertionError(layer)
    return z


def draw_subject(name: str) -> tuple[Any, Any]:
    """Return a network in float64 with random weights, and four random examples."""
    network = NETWORKS[name](SHAPES[name], 10)
    weights = initial_weights(network, 0, 1.0)
    scaled = {key: (20.0 if value.ndim > 1 else 1.0) * value for key, value in weights.items()}
    model = training_backend("torch").build(network, {k: v.astype("f8") for k, v in scaled.items()})
    generator = torch.Generator().manual_seed(1)
    return model, torch.randn(4, *SHAPES[name], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", SHAPES)
def test_decoder_equals_the_class_gradients(name: str) -> None:
    model, x = draw_subject(name)
    logits, records = encode(model, x)
    torch.testing.assert_close(logits, model(x))
    for k in range(10):
        contrast = torch.zeros_like(logits)
        contrast[:, k] = 1
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad((model(leaf) * contrast).sum(), leaf)
        torch.testing.assert_close(decode(model, records, contrast), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_penalty_by_the_decoder_has_the_same_weight_gradient(name: str) -> None:
    """Return the unrolled penalty of correctly classified examples, with the decoder's normals.

    The search makes three steps. No gradient flows through the choice of the nearest class.
    """
    model, x = draw_subject(name)
    y = model(x).argmax(1)
    defense = dd.DeepDefense(lam=1.0, c=2.0, steps=3, overshoot=0.02)
    expected = torch.autograd.grad(defense(model, x, y).sum(), list(model.parameters()))

    label_hot = torch.nn.functional.one_hot(y, 10).to(x)
    point, total = x, torch.zeros_like(x)
    is_active = torch.ones(len(x), dtype=torch.bool)
    for _ in range(3):
        logits, records = encode(model, point)
        gaps, normals = [], []
        for j in range(10):
            class_hot = torch.nn.functional.one_hot(torch.full_like(y, j), 10).to(x)
            gaps.append(((class_hot - label_hot) * logits).sum(1))
            normals.append(decode(model, records, class_hot - label_hot))
        gap, normal = torch.stack(gaps, 1), torch.stack(normals, 1)
        size = normal.flatten(2).norm(dim=2)
        ratio = gap.abs() / size.where(size > 0, torch.ones_like(size))
        nearest = ratio.where(label_hot == 0, torch.full_like(ratio, torch.inf)).argmin(1)
        rows = torch.arange(len(x))
        slope, g = normal[rows, nearest], gap[rows, nearest].abs()
        step = (g / slope.flatten(1).pow(2).sum(1))[:, None, None, None] * slope
        total = total + step * is_active[:, None, None, None]
        point = x + total
        with torch.no_grad():
            is_active = is_active & (model(x + 1.02 * total).argmax(1) == y)
    rho = 1.02 * total.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    penalty = torch.exp(-2.0 * rho)
    torch.testing.assert_close(penalty, defense(model, x, y))
    actual = torch.autograd.grad(penalty.sum(), list(model.parameters()), allow_unused=True)
    assert all(value is None or value.abs().sum() > 0 for value in actual)
    for by_decoder, by_autograd in zip(actual, expected, strict=True):
        torch.testing.assert_close(
            torch.zeros_like(by_autograd) if by_decoder is None else by_decoder, by_autograd
        )
