"""DeepFool beside its peers: the same images, in turn, with the norms that each one finds."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import deepdefense as dd
from benchmarks.insides import Counted
from benchmarks.subjects import unit_interval
from benchmarks.timing import alternated
from deepdefense.data import Dataset

__all__ = ["peers", "without"]

IMAGES, BATCH, STEPS = 1000, 100, 50
FEW = 50  # images for the peers that take them one by one, or a class at a time
Attack = Callable[[Tensor], Tensor]
Maker = Callable[[nn.Module], Attack]


def without(*names: str) -> None:
    """Empty modules for what adv-lib and torchattacks import, but DeepFool there does not use.

    No torchvision imports beside the tested torch, and visdom draws curves in a browser.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            empty: Any = types.ModuleType(name)
            empty.models = empty.transforms = empty.Visdom = object
            sys.modules[name] = empty


def _deepdefense(**settings: Any) -> Maker:
    return lambda model: lambda x: dd.deepfool(model, x, steps=STEPS, **settings).x


def _foolbox(model: nn.Module) -> Attack:
    import foolbox

    # Its bounds are checked, and clip: none that matter here.
    known = foolbox.PyTorchModel(model, bounds=(-1e6, 1e6))
    attack = foolbox.attacks.L2DeepFoolAttack(steps=STEPS, candidates=10, overshoot=0.02)
    return lambda x: attack(known, x, model(x).argmax(1), epsilons=None)[0]


def _adv_lib(model: nn.Module) -> Attack:
    without("torchvision", "torchvision.models", "visdom")
    from adv_lib.attacks import df

    return lambda x: df(model, x, model(x).argmax(1), steps=STEPS, overshoot=0.02, norm=2)


def _art(shape: tuple[int, ...], classes: int, bounds: Any) -> Maker:
    from art.attacks.evasion import DeepFool
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss()
    settings = {"max_iter": STEPS, "epsilon": 0.02, "nb_grads": 10, "batch_size": BATCH}

    def make(model: nn.Module) -> Attack:
        known = PyTorchClassifier(
            model, loss, shape, classes, clip_values=bounds, device_type="cpu"
        )
        attack = DeepFool(known, verbose=False, **settings)
        return lambda x: torch.tensor(attack.generate(x.numpy()))

    return make


def _torchattacks(model: nn.Module) -> Attack:
    without("torchvision", "torchvision.models", "torchvision.transforms")
    import torchattacks

    attack = torchattacks.DeepFool(model, steps=STEPS, overshoot=0.02)
    return lambda x: attack(x, model(x).argmax(1)).detach()


def _all(attack: Attack, x: Tensor) -> Tensor:
    return torch.cat([attack(batch) for batch in x.split(BATCH)])


def _compare(
    title: str, model: nn.Module, x: Tensor, makers: dict[str, Maker], rounds: int
) -> Iterator[dict[str, Any]]:
    attacks = {name: make(model) for name, make in makers.items()}
    calls = {name: lambda attack=attack: _all(attack, x) for name, attack in attacks.items()}
    times = alternated(calls | _alone(model, x), base="deepdefense", rounds=rounds, warmup=1)
    clean = model(x).argmax(1)
    for name, attack in attacks.items():
        found = _all(attack, x)
        norms = (found - x).flatten(1).norm(dim=1)
        counted = Counted(model).eval()
        _all(makers[name](counted), x)
        forward, backward = counted.forward_rows / len(x), counted.backward_rows / len(x)
        passes = forward * times["forward"].seconds + backward * times["backward"].seconds
        yield {
            "subject": title,
            "way": name,
            "images": len(x),
            "seconds": times[name].seconds,
            "ratio": 1 / times[name].ratio,  # deepdefense's time / this one's
            "forward_passes": forward,  # of an image
            "input_gradients": backward,
            "passes_seconds": passes,  # what they take alone, in whole batches
            "norm_mean": float(norms.mean()),
            "norm_median": float(norms.median()),
            "success": float((model(found).argmax(1) != clean).float().mean()),
        }


def _alone(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
    """A forward pass of all images by batches, and one gradient of each towards its input."""
    batches = [batch.clone().requires_grad_() for batch in x.split(BATCH)]
    logits = [model(batch) for batch in batches]
    ones = [torch.ones_like(values) for values in logits]

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    def backward() -> None:
        for values, batch, cotangent in zip(logits, batches, ones, strict=True):
            torch.autograd.grad(values, batch, cotangent, retain_graph=True)

    return {"forward": forward, "backward": backward}


def peers(model: nn.Module, data: Dataset, rounds: int) -> Iterator[dict[str, Any]]:
    """With and without bounds; the parameters are frozen, which helps the peers."""
    model = model.eval().requires_grad_(False)
    bounded = unit_interval(model, data)
    x = torch.tensor(data.x_test[:IMAGES])
    pixels = (x + torch.tensor(data.mean)) / data.scale
    pixels = pixels.clamp(0, 1)  # rounding
    shape, classes = tuple(x.shape[1:]), data.classes
    yield from _compare(
        "mlp, no bounds",
        model,
        x,
        {"deepdefense": _deepdefense(), "foolbox": _foolbox},
        rounds,
    )
    within = _deepdefense(bounds=(0.0, 1.0))
    yield from _compare(
        "mlp, within [0, 1]",
        bounded,
        pixels,
        {"deepdefense": within, "adv-lib": _adv_lib},
        rounds,
    )
    yield from _compare(
        "mlp, within [0, 1], few images",
        bounded,
        pixels[:FEW],
        {
            "deepdefense": within,
            "ART": _art(shape, classes, (0.0, 1.0)),
            "torchattacks": _torchattacks,
        },
        1,
    )
