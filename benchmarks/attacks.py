"""Compare this library's DeepFool with that of other libraries: time, passes and norms."""

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
from benchmarks.step_parts import BACKWARD, FORWARD, PassCounter, make_passes
from benchmarks.subjects import take_unit_interval
from benchmarks.timing import time_alternately
from deepdefense.evaluation.dataset import Dataset

__all__ = ["measure_attacks", "stub_missing_modules"]

IMAGES, BATCH, STEPS = 1000, 100, 50
# With this overshoot, deepdefense's norms are no larger than the other libraries' norms with 0.02.
SMALL_OVERSHOOT = 0.001
# On these images, the norms with 6 candidate classes are as small as those with 10.
CANDIDATES, FEWER_CANDIDATES = 10, 6
FEW_IMAGES = 50  # the number of images for slow libraries
Attack = Callable[[Tensor], Tensor]  # images -> perturbed images
AttackMaker = Callable[[nn.Module], Attack]  # binds an attack to a model


def stub_missing_modules(*names: str) -> None:
    """Put an empty module into `sys.modules` for every name that cannot be imported.

    adv-lib and torchattacks import torchvision and visdom, but the attacks measured here use
    neither. Neither is installed: no release of torchvision fits the tested version of torch, and
    visdom only draws curves in a browser.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            empty: Any = types.ModuleType(name)
            empty.models = empty.transforms = empty.Visdom = object
            sys.modules[name] = empty


def _deepdefense(**settings: Any) -> AttackMaker:
    return lambda model: lambda x: dd.deepfool(model, x, steps=STEPS, **settings).x


def _deepdefense_variants(**settings: Any) -> dict[str, AttackMaker]:
    """Return this library's attack with the other libraries' settings, and two variants of it."""
    small = f"deepdefense, overshoot {SMALL_OVERSHOOT}"
    precise = {**settings, "overshoot": SMALL_OVERSHOOT}
    return {
        "deepdefense": _deepdefense(**settings),
        small: _deepdefense(**precise),
        f"{small}, {FEWER_CANDIDATES} candidates": _deepdefense(
            **precise, candidates=FEWER_CANDIDATES
        ),
    }


def _foolbox(candidates: int) -> AttackMaker:
    import foolbox

    attack = foolbox.attacks.L2DeepFoolAttack(steps=STEPS, candidates=candidates, overshoot=0.02)

    def make_attack(model: nn.Module) -> Attack:
        # foolbox requires bounds. These are too wide to clip anything.
        wrapped = foolbox.PyTorchModel(model, bounds=(-1e6, 1e6))
        return lambda x: attack(wrapped, x, model(x).argmax(1), epsilons=None)[0]

    return make_attack


def _adv_lib(model: nn.Module) -> Attack:
    stub_missing_modules("torchvision", "torchvision.models", "visdom")
    from adv_lib.attacks import df

    return lambda x: df(model, x, model(x).argmax(1), steps=STEPS, overshoot=0.02, norm=2)


def _art(shape: tuple[int, ...], classes: int, bounds: Any) -> AttackMaker:
    from art.attacks.evasion import DeepFool
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss()
    settings = {"max_iter": STEPS, "epsilon": 0.02, "nb_grads": CANDIDATES, "batch_size": BATCH}

    def make_attack(model: nn.Module) -> Attack:
        wrapped = PyTorchClassifier(
            model, loss, shape, classes, clip_values=bounds, device_type="cpu"
        )
        attack = DeepFool(wrapped, verbose=False, **settings)
        return lambda x: torch.tensor(attack.generate(x.numpy()))

    return make_attack


def _torchattacks(model: nn.Module) -> Attack:
    stub_missing_modules("torchvision", "torchvision.models", "torchvision.transforms")
    import torchattacks

    attack = torchattacks.DeepFool(model, steps=STEPS, overshoot=0.02)
    return lambda x: attack(x, model(x).argmax(1)).detach()


def _attack_in_batches(attack: Attack, x: Tensor) -> Tensor:
    return torch.cat([attack(batch) for batch in x.split(BATCH)])


def _compare(
    title: str, model: nn.Module, x: Tensor, makers: dict[str, AttackMaker], rounds: int
) -> Iterator[dict[str, Any]]:
    counters = {name: PassCounter(model).eval() for name in makers}
    points = {name: _attack_in_batches(make(counters[name]), x) for name, make in makers.items()}
    calls: dict[str, Callable[[], object]] = {
        name: partial(_attack_in_batches, make(model), x) for name, make in makers.items()
    }
    calls |= make_passes(model, x, counters.values())
    timings = time_alternately(calls, base="deepdefense", rounds=rounds, warmup=1)
    clean = model(x).argmax(1)
    for name, counter in counters.items():
        norms = (points[name] - x).flatten(1).norm(dim=1)
        yield {
            "subject": title,
            "way": name,
            "images": len(x),
            "seconds": timings[name].seconds,
            "ratio": 1 / timings[name].ratio,  # deepdefense's time / this attack's time
            "forward_passes": counter.count_examples(FORWARD) / len(x),  # the mean over the images
            "input_gradients": counter.count_examples(BACKWARD) / len(x),
            "passes_seconds": counter.sum_seconds(timings),
            "norm_mean": float(norms.mean()),
            "norm_median": float(norms.median()),
            "success": float((model(points[name]).argmax(1) != clean).float().mean()),
        }


def measure_attacks(model: nn.Module, data: Dataset, rounds: int) -> Iterator[dict[str, Any]]:
    """Compare DeepFool of this and other libraries, with and without bounds.

    The model's parameters are frozen. Otherwise the other libraries would also compute gradients
    with respect to the parameters.
    """
    model = model.eval().requires_grad_(False)
    bounded = take_unit_interval(model, data)
    x = torch.tensor(data.x_test[:IMAGES])
    pixels = (x + torch.tensor(data.mean)) / data.scale
    pixels = pixels.clamp(0, 1)  # rounding errors may move a pixel out of the bounds
    shape, classes = tuple(x.shape[1:]), data.classes
    yield from _compare(
        "mlp, no bounds",
        model,
        x,
        {
            **_deepdefense_variants(),
            "foolbox": _foolbox(CANDIDATES),
            f"foolbox, {FEWER_CANDIDATES} candidates": _foolbox(FEWER_CANDIDATES),
        },
        rounds,
    )
    within_bounds = _deepdefense_variants(bounds=(0.0, 1.0))
    yield from _compare(
        "mlp, within [0, 1]",
        bounded,
        pixels,
        {**within_bounds, "adv-lib": _adv_lib},
        rounds,
    )
    yield from _compare(
        "mlp, within [0, 1], few images",
        bounded,
        pixels[:FEW_IMAGES],
        {
            "deepdefense": within_bounds["deepdefense"],
            "ART": _art(shape, classes, (0.0, 1.0)),
            "torchattacks": _torchattacks,
        },
        min(rounds, 3),
    )
