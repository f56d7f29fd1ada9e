"""The paper's decoder, written by hand, against automatic differentiation: LeNet and ConvNet.

Yan, Guo and Zhang (2018), section 3.2, build the gradient of a logit towards the input as a second
network that shares the classifier's weights: transposed layers, ReLUs that pass what passed on the
way up, and unpooling by the switches of the pooling. So the gradient of the penalty towards the
weights takes nothing but ordinary backpropagation through both. Here no second derivative is taken
on the decoder's side either.
"""

from __future__ import annotations

from typing import Any

import pytest

import deepdefense as dd
from deepdefense.seam.training import training_backend
from deepdefense.zoo import NETWORKS, initial_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")

SHAPES = {"lenet": (1, 28, 28), "convnet": (3, 32, 32)}


def encoded(model: Any, x: Any) -> tuple[Any, list[Any]]:
    """Logits [b k], and what the decoder must know of each layer: shapes, masks and switches."""
    known = []
    for layer in model:
        came = x
        if isinstance(layer, torch.nn.MaxPool2d):
            x, switches = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
            known.append((came.shape, switches))
        else:
            x = layer(x)
            known.append((came.shape, came > 0))
    return x, known


def decoded(model: Any, known: list[Any], contrast: Any) -> Any:
    """From a contrast of logits [b k] down to the input, by the transposed network."""
    functional, z = torch.nn.functional, contrast
    for layer, (shape, kept) in zip(reversed(list(model)), reversed(known), strict=True):
        match layer:
            case torch.nn.Linear():
                z = z @ layer.weight
            case torch.nn.ReLU():
                z = z * kept
            case torch.nn.Flatten():
                z = z.reshape(shape)
            case torch.nn.MaxPool2d():
                z = functional.max_unpool2d(z, kept, 2, output_size=shape)
            case torch.nn.AvgPool2d():
                z = z.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
            case torch.nn.Conv2d():
                z = functional.conv_transpose2d(z, layer.weight, padding=layer.padding)
            case _:
                raise AssertionError(layer)
    return z


def subject(name: str) -> tuple[Any, Any]:
    """A network in float64 and four examples of it."""
    network = NETWORKS[name](SHAPES[name], 10)
    weights = initial_weights(network, 0, 1.0)
    loud = {key: (20.0 if value.ndim > 1 else 1.0) * value for key, value in weights.items()}
    model = training_backend("torch").build(network, {k: v.astype("f8") for k, v in loud.items()})
    generator = torch.Generator().manual_seed(1)
    return model, torch.randn(4, *SHAPES[name], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", SHAPES)
def test_decoder_is_the_gradient_of_each_class(name: str) -> None:
    model, x = subject(name)
    logits, known = encoded(model, x)
    torch.testing.assert_close(logits, model(x))
    for k in range(10):
        contrast = torch.zeros_like(logits)
        contrast[:, k] = 1
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad((model(leaf) * contrast).sum(), leaf)
        torch.testing.assert_close(decoded(model, known, contrast), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_penalty_by_the_decoder_has_the_same_gradient_in_every_weight(name: str) -> None:
    """The unrolled penalty of right examples, three steps of DeepFool, with the decoder's normals.

    Which class is nearest is taken from the search, as no gradient flows through that choice.
    """
    model, x = subject(name)
    y = model(x).argmax(1)
    defense = dd.DeepDefense(lam=1.0, c=2.0, steps=3, overshoot=0.02)
    expected = torch.autograd.grad(defense(model, x, y).sum(), list(model.parameters()))

    own = torch.nn.functional.one_hot(y, 10).to(x)
    point, total = x, torch.zeros_like(x)
    open_ = torch.ones(len(x), dtype=torch.bool)
    for _ in range(3):
        logits, known = encoded(model, point)
        gaps, normals = [], []
        for j in range(10):
            rival = torch.nn.functional.one_hot(torch.full_like(y, j), 10).to(x)
            gaps.append(((rival - own) * logits).sum(1))
            normals.append(decoded(model, known, rival - own))
        gap, normal = torch.stack(gaps, 1), torch.stack(normals, 1)
        size = normal.flatten(2).norm(dim=2)
        ratio = gap.abs() / size.where(size > 0, torch.ones_like(size))
        nearest = ratio.where(own == 0, torch.full_like(ratio, torch.inf)).argmin(1)
        rows = torch.arange(len(x))
        slope, g = normal[rows, nearest], gap[rows, nearest].abs()
        step = (g / slope.flatten(1).pow(2).sum(1))[:, None, None, None] * slope
        total = total + step * open_[:, None, None, None]
        point = x + total
        with torch.no_grad():
            open_ = open_ & (model(x + 1.02 * total).argmax(1) == y)
    rho = 1.02 * total.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    penalty = torch.exp(-2.0 * rho)
    torch.testing.assert_close(penalty, defense(model, x, y))
    found = torch.autograd.grad(penalty.sum(), list(model.parameters()), allow_unused=True)
    assert all(value is None or value.abs().sum() > 0 for value in found)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.zeros_like(theirs) if mine is None else mine, theirs)
