"""Attack a trained network on held-out examples and measure its robustness.

Most functions store their measurements as JSON files in the run folder of the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepdefense import attacks
from deepdefense.app.run_folder import RunFolder
from deepdefense.evaluation import fgs_accuracy
from deepdefense.evaluation.assessment import assess
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.plan import EvaluationPlan
from deepdefense.evaluation.provenance import NetworkInfo, Provenance
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend

__all__ = [
    "FGS_CURVE_POINTS",
    "evaluate_distances",
    "load_or_compute",
    "measure_attacks",
    "measure_fgs",
    "take_first_examples",
]

FGS_CURVE_POINTS = 21  # the number of eps values in a curve of accuracy under FGS
Numbers = dict[str, Any]  # {name: measurement}, with values that JSON can store


def load_or_compute(folder: Path, name: str, compute: Callable[[], Numbers]) -> Numbers:
    """Return the content of the file NAME.json in `folder`; if missing, compute and write it."""
    path = folder / f"{name}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    numbers = compute()
    RunFolder(folder).write(path.name, json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    return numbers


def take_first_examples(
    data: Dataset, examples: int, backend: TrainingBackend, model: Any
) -> tuple[Any, Any]:
    """Return the first `examples` held-out examples and their labels, as framework arrays."""
    x = backend.asarray(data.x_test[:examples], model)
    return x, backend.index(data.y_test[:examples], data.classes, x)


def evaluate_distances(model: Any, data: Dataset, folder: Path, examples: int) -> Numbers:
    """Return two median l2 distances, and the names of the evaluation's checks that fail.

    One median uses the smallest perturbation that any attack of the preset "quick" finds for each
    example. The other median uses DeepFool alone.
    """

    def compute() -> Numbers:
        network = NetworkInfo(type(model).__name__, None, "given")
        report = assess(
            model,
            data.x_test[:examples],
            data.y_test[:examples],
            EvaluationPlan.from_arguments(
                preset="quick", p=2, eps=None, seed=0, batch_size=500, rho=RHO_ATTACK
            ),
            bounds=data.pixel_bounds(),
            reference=None,
            provenance=Provenance(network, network, {}),
            storage=None,
            watcher=Watcher(),
        )
        deepfool = next(line for line in report.attacks if line.name.startswith("deepfool"))
        return {
            "examples": min(examples, len(data.x_test)),
            "median_l2": report.distance.median,
            "interval": list(report.intervals["distance_median"]),
            "median_l2_deepfool": deepfool.median,
            "failing_checks": [c.name for c in report.checks if c.status == "fail"],
        }

    return load_or_compute(folder, f"distances-{examples}", compute)


def measure_fgs(model: Any, data: Dataset, eps: Sequence[float], examples: int) -> list[float]:
    """Return accuracy under FGS at each eps; as in the paper, FGS does not clip its examples."""
    x, y = data.x_test[:examples], data.y_test[:examples]
    return list(fgs_accuracy(model, x, y, list(eps)))


def measure_attacks(
    model: Any,
    backend: TrainingBackend,
    data: Dataset,
    folder: Path,
    examples: int,
    eps: dict[str, float],
) -> list[Numbers]:
    """Run every attack of table 2 and return a dict of results for each attack.

    A minimum-norm attack has the result "median", the median distance. A fixed-budget attack has
    the result "accuracy", the accuracy under attack within `eps["l2"]` or `eps["linf"]`.
    """
    x, y = take_first_examples(data, examples, backend, model)
    bounds = data.pixel_bounds()

    def measure(name: str, norm: str, attack: Callable[..., Any], **options: Any) -> Numbers:
        with backend.precise():
            result = attack(model, x, y, bounds=bounds, **options)
        order = {"l2": 2.0, "linf": np.inf}[norm]
        success = backend.to_numpy(result.success)
        delta = backend.to_numpy(result.delta).reshape(len(success), -1)
        distances = np.where(success, np.linalg.norm(delta, order, axis=1), np.inf)
        radius = options.get("eps")
        median = float(np.sort(distances)[(len(distances) - 1) // 2])
        return {
            "attack": name,
            "norm": norm,
            "eps": radius,
            "fooled": float(success.mean()),
            "median": median if radius is None and np.isfinite(median) else None,
            "accuracy": None if radius is None else float(1 - success.mean()),
        }

    def compute() -> Numbers:
        lines = [
            measure("DeepFool", "l2", attacks.deepfool),
            measure("SuperDeepFool", "l2", attacks.superdeepfool),
            measure("DDN", "l2", attacks.ddn, steps=100),
            measure("FMN", "l2", attacks.fmn, steps=100),
            measure("C&W", "l2", attacks.cw, steps=100),
            measure("FMN", "linf", attacks.fmn, steps=100, p=np.inf),
        ]
        for norm, p in (("l2", 2.0), ("linf", np.inf)):
            within: dict[str, Any] = {"eps": eps[norm], "p": p}
            lines += [
                measure("PGD", norm, attacks.pgd, **within),
                measure("APGD", norm, attacks.apgd, **within),
                measure("APGD, targeted", norm, attacks.apgd, loss="targeted-dlr", **within),
                measure("Square", norm, attacks.square, steps=500, **within),
            ]
        return {"examples": len(x), "lines": lines}

    return list(load_or_compute(folder, f"attacks-{examples}", compute)["lines"])
