"""How strong the attacks are beside their peers: the same images, bounds and numbers of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import deepdefense as dd
from benchmarks.attacks import without
from benchmarks.subjects import unit_interval
from deepdefense.evaluation.dataset import Dataset

__all__ = ["nearest", "within"]

BOUNDS = (0.0, 1.0)
STEPS = 100
Attack = Callable[[Tensor, Tensor], Any]


def _right(model: nn.Module, data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """The first images that the network gets right, as pixels in [0, 1]."""
    x = torch.tensor(data.x_test[: 2 * count]) + torch.tensor(data.mean)
    x, y = (x / data.scale).clamp(0, 1), torch.tensor(data.y_test[: 2 * count])
    right = model(x).argmax(1) == y
    return x[right][:count], y[right][:count]


def _line(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, p: float) -> dict[str, Any]:
    begun = time.perf_counter()
    found = attack(x, y)
    seconds = time.perf_counter() - begun
    found = (found.x if isinstance(found, dd.Perturbation) else found).detach()
    fooled = model(found).argmax(1) != y
    norms = (found - x).flatten(1).norm(dim=1, p=p)
    norms[~fooled] = math.inf
    median = float(norms.sort().values[(len(norms) - 1) // 2])
    return {
        "images": len(x),
        "fooled": float(fooled.float().mean()),
        "median": median if math.isfinite(median) else None,
        "seconds": seconds,
    }


def nearest(title: str, network: nn.Module, data: Dataset, images: int) -> Iterator[dict[str, Any]]:
    """Attacks for the nearest point that fools: median distances, failures as infinitely far."""
    import foolbox

    without("torchvision", "torchvision.models", "visdom")
    from adv_lib import attacks as adv

    model = unit_interval(network.eval().requires_grad_(False), data)
    x, y = _right(model, data, images)
    known = foolbox.PyTorchModel(model, bounds=BOUNDS)

    def box(attack: Any) -> Attack:
        return lambda x, y: attack(known, x, y, epsilons=None)[0]

    few: Any = {"steps": STEPS, "bounds": BOUNDS}
    rows: list[tuple[str, str, float, Attack]] = [
        ("ddn", "deepdefense", 2, lambda x, y: dd.ddn(model, x, y, **few)),
        ("ddn", "adv-lib", 2, lambda x, y: adv.ddn(model, x, y, steps=STEPS, levels=None)),
        ("ddn", "foolbox", 2, box(foolbox.attacks.DDNAttack(steps=STEPS))),
        ("fmn", "deepdefense", 2, lambda x, y: dd.fmn(model, x, y, **few)),
        ("fmn", "adv-lib", 2, lambda x, y: adv.fmn(model, x, y, norm=2, steps=STEPS)),
        ("fmn", "foolbox", 2, box(foolbox.attacks.L2FMNAttack(steps=STEPS))),
        ("fmn", "deepdefense", math.inf, lambda x, y: dd.fmn(model, x, y, p=math.inf, **few)),
        ("fmn", "adv-lib", math.inf, lambda x, y: adv.fmn(model, x, y, norm=math.inf, steps=STEPS)),
        ("fmn", "foolbox", math.inf, box(foolbox.attacks.LInfFMNAttack(steps=STEPS))),
        (
            "superdeepfool",
            "deepdefense",
            2,
            lambda x, y: dd.superdeepfool(model, x, y, bounds=BOUNDS),
        ),
        ("superdeepfool", "adv-lib", 2, lambda x, y: adv.sdf(model, x, y, steps=10, df_steps=50)),
    ]
    for steps in (100, 300):
        options: Any = {"steps": steps, "bounds": BOUNDS}
        peer: Any = {"max_iterations": steps}
        foreign = foolbox.attacks.L2CarliniWagnerAttack(steps=steps)
        name = f"cw, 9 x {steps}"
        rows += [
            (name, "deepdefense", 2, lambda x, y, o=options: dd.cw(model, x, y, **o)),
            (name, "adv-lib", 2, lambda x, y, o=peer: adv.carlini_wagner_l2(model, x, y, **o)),
            (name, "foolbox", 2, box(foreign)),
        ]
    for name, way, p, attack in rows:
        line = _line(model, x, y, attack, p)
        yield {"subject": title, "attack": name, "norm": f"l{p:g}", "way": way, **line}


def within(
    title: str, network: nn.Module, data: Dataset, p: float, eps: float, images: int
) -> Iterator[dict[str, Any]]:
    """APGD by both losses, then Square, on what is left: accuracy under attack within eps."""
    from pyautoattack import AutoAttack

    model = unit_interval(network.eval().requires_grad_(False), data)
    x, y = _right(model, data, images)
    known: Any = {"eps": eps, "p": p, "bounds": BOUNDS}

    def ours(x: Tensor, y: Tensor) -> Tensor:
        found, left = x.clone(), torch.ones(len(x), dtype=torch.bool)
        for attack in (
            lambda x, y: dd.apgd(model, x, y, **known),
            lambda x, y: dd.apgd(model, x, y, loss="targeted-dlr", **known),
            lambda x, y: dd.square(model, x, y, steps=1000, **known),
        ):
            rows = left.nonzero()[:, 0]
            result = attack(x[rows], y[rows])
            found[rows[result.success]] = result.x[result.success]
            left[rows[result.success]] = False
        return found

    def theirs(attacks: list[str]) -> Attack:
        peer = AutoAttack(
            model,
            norm="Linf" if p == math.inf else "L2",
            eps=eps,
            version="custom",
            attacks=attacks,
            seed=0,
        )
        peer.apgd.n_restarts = peer.apgd_targeted.n_restarts = peer.fab.n_restarts = 1
        peer.square.n_queries = 1000
        return lambda x, y: peer.run_standard_evaluation(x, y, batch_size=500)

    for attacks, way, attack in (
        ("apgd-ce, apgd-t, square", "deepdefense", ours),
        ("apgd-ce, apgd-t, square", "pyautoattack", theirs(["apgd-ce", "apgd-t", "square"])),
        ("and fab-t", "pyautoattack", theirs(["apgd-ce", "apgd-t", "fab-t", "square"])),
        ("square", "deepdefense", lambda x, y: dd.square(model, x, y, steps=1000, **known)),
        ("square", "pyautoattack", theirs(["square"])),
    ):
        line = _line(model, x, y, _only_points(attack), p)
        yield {
            "subject": title,
            "norm": f"l{p:g}",
            "eps": eps,
            "attacks": attacks,
            "way": way,
            "images": line["images"],
            "accuracy": 1 - line["fooled"],
            "seconds": line["seconds"],
        }


def _only_points(attack: Attack) -> Attack:
    """Some return the points alone, some a tuple with more."""

    def points(x: Tensor, y: Tensor) -> Any:
        found = attack(x, y)
        return found[0] if isinstance(found, tuple) else found

    return points
