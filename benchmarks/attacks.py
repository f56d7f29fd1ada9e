"""DeepFool beside its peers: the same images, in turn, with the norms that each one finds."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import deepdefense as dd
from benchmarks.insides import BACKWARD, FORWARD, Counted, each_pass
from benchmarks.subjects import unit_interval
from benchmarks.timing import alternated
from deepdefense.evaluation.dataset import Dataset

__all__ = ["peers", "without"]

IMAGES, BATCH, STEPS = 1000, 100, 50
FINE = 0.001  # an overshoot with which norms are no larger than the peers' with 0.02
CANDIDATES, FEWER = 10, 6  # classes looked at; on these images six find what ten do
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


def _own(**settings: Any) -> dict[str, Maker]:
    """Ours, as the peers are set; going less far past the boundary; and among fewer classes."""
    fine = f"deepdefense, overshoot {FINE}"
    return {
        "deepdefense": _deepdefense(**settings),
        fine: _deepdefense(overshoot=FINE, **settings),
        f"{fine}, {FEWER} candidates": _deepdefense(overshoot=FINE, candidates=FEWER, **settings),
    }


def _foolbox(candidates: int) -> Maker:
    import foolbox

    attack = foolbox.attacks.L2DeepFoolAttack(steps=STEPS, candidates=candidates, overshoot=0.02)

    def make(model: nn.Module) -> Attack:
        # Its bounds are checked, and clip: none that matter here.
        known = foolbox.PyTorchModel(model, bounds=(-1e6, 1e6))
        return lambda x: attack(known, x, model(x).argmax(1), epsilons=None)[0]

    return make


def _adv_lib(model: nn.Module) -> Attack:
    without("torchvision", "torchvision.models", "visdom")
    from adv_lib.attacks import df

    return lambda x: df(model, x, model(x).argmax(1), steps=STEPS, overshoot=0.02, norm=2)


def _art(shape: tuple[int, ...], classes: int, bounds: Any) -> Maker:
    from art.attacks.evasion import DeepFool
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss()
    settings = {"max_iter": STEPS, "epsilon": 0.02, "nb_grads": CANDIDATES, "batch_size": BATCH}

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
    counted = {name: Counted(model).eval() for name in makers}
    found = {name: _all(make(counted[name]), x) for name, make in makers.items()}
    calls: dict[str, Callable[[], object]] = {
        name: partial(_all, make(model), x) for name, make in makers.items()
    }
    calls |= each_pass(model, x, counted.values())
    times = alternated(calls, base="deepdefense", rounds=rounds, warmup=1)
    clean = model(x).argmax(1)
    for name, count in counted.items():
        norms = (found[name] - x).flatten(1).norm(dim=1)
        yield {
            "subject": title,
            "way": name,
            "images": len(x),
            "seconds": times[name].seconds,
            "ratio": 1 / times[name].ratio,  # deepdefense's time / this one's
            "forward_passes": count.examples(FORWARD) / len(x),  # of an image
            "input_gradients": count.examples(BACKWARD) / len(x),
            "passes_seconds": count.seconds_alone(times),
            "norm_mean": float(norms.mean()),
            "norm_median": float(norms.median()),
            "success": float((model(found[name]).argmax(1) != clean).float().mean()),
        }


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
        {
            **_own(),
            "foolbox": _foolbox(CANDIDATES),
            f"foolbox, {FEWER} candidates": _foolbox(FEWER),
        },
        rounds,
    )
    within = _own(bounds=(0.0, 1.0))
    yield from _compare(
        "mlp, within [0, 1]",
        bounded,
        pixels,
        {**within, "adv-lib": _adv_lib},
        rounds,
    )
    yield from _compare(
        "mlp, within [0, 1], few images",
        bounded,
        pixels[:FEW],
        {
            "deepdefense": within["deepdefense"],
            "ART": _art(shape, classes, (0.0, 1.0)),
            "torchattacks": _torchattacks,
        },
        min(rounds, 3),
    )
