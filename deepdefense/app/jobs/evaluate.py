"""`evaluate`: accuracy and robustness that can be believed, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepdefense.app.runs import REPORT, SETTINGS, RunFolder
from deepdefense.evaluation.assessment import assess
from deepdefense.evaluation.plan import EvaluationPlan
from deepdefense.evaluation.provenance import NetworkInfo, Provenance
from deepdefense.evaluation.report import Report
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.progress import Watcher

__all__ = ["evaluate"]


def evaluate(
    model: Model,
    x: Array,
    y: Array,
    *,
    preset: str = "quick",
    p: float = 2,
    eps: float | Sequence[float] | None = None,
    bounds: tuple[Any, Any] | None = None,
    reference: Model | None = None,
    seed: int = 0,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    batch_size: int = 500,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Report:
    """Accuracy, rho, and the smallest perturbations that several attacks find, with checks.

    The distance of an example is the length of the smallest perturbation found by any attack, each
    verified on the example alone: 0 where the network is wrong of itself, and beyond all that was
    tried where every attack failed. Accuracy under attack within eps is the share of examples whose
    distance is larger. Checks look for what would make these figures wrong; while a severe one
    fails, the headline is withheld.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy's for a native model.
        y: labels [n].
        preset: "quick", "standard" or "thorough": which attacks, with how many steps; `suite`.
        p: the norm of the attacker, 2 or inf; with inf, rho_inf is given besides rho_2.
        eps: sizes to give accuracy under attack at, the first in the headline; None: the median
            distance of the examples that are right.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
        reference: the undefended network, to compare with on the same examples.
        seed: of everything random; what is drawn for an example depends on it and on its values.
        steps: of the DeepFool of rho.
        overshoot: of the DeepFool of rho.
        candidates: of the DeepFool of rho.
        batch_size: how many examples are attacked at a time; it changes no figure.
        out: a new folder for report.json and report.html; one that was interrupted is gone on with.
        watcher: hears of the progress.

    Returns:
        `Report`: `accuracy`, `rho_2`, `headline`, `distance`, `curve`, `attacks`, `checks`, ...

    Raises:
        InputError: no example, or an argument out of range or of the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> report = evaluate(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), np.array([0]))
    >>> report.accuracy, round(report.rho_2, 4)  # 1.02 * 1 / ||x||
    (1.0, 0.9123)
    >>> round(report.distance.median, 2), report.trusted  # 5 / ||(3, 4)||
    (1.0, True)

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), section 4, for rho; Carlini et al. (2019),
    "On evaluating adversarial robustness", for what is checked.
    """
    plan = EvaluationPlan.from_arguments(
        preset=preset,
        p=p,
        eps=eps,
        seed=seed,
        batch_size=batch_size,
        rho={"steps": steps, "overshoot": overshoot, "candidates": candidates},
    )
    run = None if out is None else _folder(Path(out))
    report = assess(
        model,
        x,
        y,
        plan,
        bounds=bounds,
        reference=reference,
        provenance=Provenance(_named(model), _named(reference), {}),
        storage=None if run is None else run.attack_storage,
        watcher=watcher or Watcher(),
    )
    if run is not None:
        from deepdefense.app.jobs.evaluate_results import write

        write(run, report)
    return report


def _named(model: Any) -> NetworkInfo:
    return NetworkInfo(getattr(model, "__name__", type(model).__name__), None, "given")


def _folder(path: Path) -> RunFolder:
    """A new folder, or an interrupted one: what it holds is found again by what it is of."""
    interrupted = (path / SETTINGS).is_file() and not (path / REPORT).exists()
    if interrupted:
        return RunFolder.reopen(path, command="evaluate")
    return RunFolder.create(path, {"command": "evaluate"})
