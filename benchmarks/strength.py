"""Compare the strength of the attacks with other libraries: same images, bounds and steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import deepdefense as dd
from benchmarks.attacks import stub_missing_modules
from benchmarks.subjects import take_unit_interval
from deepdefense.evaluation.dataset import Dataset

__all__ = ["measure_fixed_budget", "measure_minimum_norm"]

BOUNDS = (0.0, 1.0)
STEPS = 100
# Returns the perturbed images, or an object or a tuple that contains them.
Attack = Callable[[Tensor, Tensor], Any]  # images and labels -> perturbed images


def _select_correct(model: nn.Module, data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` correctly classified test images, as pixels in [0, 1], and their labels."""
    x = torch.tensor(data.x_test[: 2 * count]) + torch.tensor(data.mean)
    x, y = (x / data.scale).clamp(0, 1), torch.tensor(data.y_test[: 2 * count])
    correct = model(x).argmax(1) == y
    return x[correct][:count], y[correct][:count]


def _run(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, p: float) -> dict[str, Any]:
    """Run an attack; return its time, the share of fooled images and their median distance.

    An image that the attack does not fool has an infinite distance. If the median is infinite, it
    is None.
    """
    start = time.perf_counter()
    result = attack(x, y)
    seconds = time.perf_counter() - start
    points = (result.x if isinstance(result, dd.Perturbation) else result).detach()
    fooled = model(points).argmax(1) != y
    norms = (points - x).flatten(1).norm(dim=1, p=p)
    norms[~fooled] = math.inf
    median = float(norms.sort().values[(len(norms) - 1) // 2])
    return {
        "images": len(x),
        "fooled": float(fooled.float().mean()),
        "median": median if math.isfinite(median) else None,
        "seconds": seconds,
    }


def measure_minimum_norm(
    title: str, network: nn.Module, data: Dataset, images: int
) -> Iterator[dict[str, Any]]:
    """Measure the median distances that the minimum-norm attacks of each library find."""
    import foolbox

    stub_missing_modules("torchvision", "torchvision.models", "visdom")
    from adv_lib import attacks as adv

    model = take_unit_interval(network.eval().requires_grad_(False), data)
    x, y = _select_correct(model, data, images)
    wrapped = foolbox.PyTorchModel(model, bounds=BOUNDS)

    def from_foolbox(attack: Any) -> Attack:
        return lambda x, y: attack(wrapped, x, y, epsilons=None)[0]

    ours: Any = {"steps": STEPS, "bounds": BOUNDS}
    linf = math.inf
    rows: list[tuple[str, str, float, Attack]] = [
        ("ddn", "deepdefense", 2, lambda x, y: dd.ddn(model, x, y, **ours)),
        ("ddn", "adv-lib", 2, lambda x, y: adv.ddn(model, x, y, steps=STEPS, levels=None)),
        ("ddn", "foolbox", 2, from_foolbox(foolbox.attacks.DDNAttack(steps=STEPS))),
        ("fmn", "deepdefense", 2, lambda x, y: dd.fmn(model, x, y, **ours)),
        ("fmn", "adv-lib", 2, lambda x, y: adv.fmn(model, x, y, norm=2, steps=STEPS)),
        ("fmn", "foolbox", 2, from_foolbox(foolbox.attacks.L2FMNAttack(steps=STEPS))),
        ("fmn", "deepdefense", linf, lambda x, y: dd.fmn(model, x, y, p=linf, **ours)),
        ("fmn", "adv-lib", linf, lambda x, y: adv.fmn(model, x, y, norm=linf, steps=STEPS)),
        ("fmn", "foolbox", linf, from_foolbox(foolbox.attacks.LInfFMNAttack(steps=STEPS))),
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
            (name, "foolbox", 2, from_foolbox(foreign)),
        ]
    for name, library, p, attack in rows:
        line = _run(model, x, y, attack, p)
        yield {"subject": title, "attack": name, "norm": f"l{p:g}", "way": library, **line}


def measure_fixed_budget(
    title: str, network: nn.Module, data: Dataset, p: float, eps: float, images: int
) -> Iterator[dict[str, Any]]:
    """Measure the accuracy under fixed-budget attacks within eps, for each library.

    The attacks run in turn, each on the images that the earlier ones did not fool: APGD with the
    cross-entropy, APGD with the targeted DLR loss, then Square.
    """
    from pyautoattack import AutoAttack

    model = take_unit_interval(network.eval().requires_grad_(False), data)
    x, y = _select_correct(model, data, images)
    options: Any = {"eps": eps, "p": p, "bounds": BOUNDS}

    def ours(x: Tensor, y: Tensor) -> Tensor:
        points, left = x.clone(), torch.ones(len(x), dtype=torch.bool)
        for attack in (
            lambda x, y: dd.apgd(model, x, y, **options),
            lambda x, y: dd.apgd(model, x, y, loss="targeted-dlr", **options),
            lambda x, y: dd.square(model, x, y, steps=1000, **options),
        ):
            rows = left.nonzero()[:, 0]
            result = attack(x[rows], y[rows])
            points[rows[result.success]] = result.x[result.success]
            left[rows[result.success]] = False
        return points

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

    for attacks, library, attack in (
        ("apgd-ce, apgd-t, square", "deepdefense", ours),
        ("apgd-ce, apgd-t, square", "pyautoattack", theirs(["apgd-ce", "apgd-t", "square"])),
        ("and fab-t", "pyautoattack", theirs(["apgd-ce", "apgd-t", "fab-t", "square"])),
        ("square", "deepdefense", lambda x, y: dd.square(model, x, y, steps=1000, **options)),
        ("square", "pyautoattack", theirs(["square"])),
    ):
        line = _run(model, x, y, _keep_points(attack), p)
        yield {
            "subject": title,
            "norm": f"l{p:g}",
            "eps": eps,
            "attacks": attacks,
            "way": library,
            "images": line["images"],
            "accuracy": 1 - line["fooled"],
            "seconds": line["seconds"],
        }


def _keep_points(attack: Attack) -> Attack:
    """Return an attack that returns only the perturbed images, even if `attack` returns more."""

    def find_points(x: Tensor, y: Tensor) -> Any:
        result = attack(x, y)
        return result[0] if isinstance(result, tuple) else result

    return find_points
