"""Make reports of evaluations with chosen figures, for the tests of the evaluation's page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.app.pages import WeakestExamples
from deepdefense.evaluation.checks import Check, Status
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.report import (
    AttackLine,
    Headline,
    ReferenceFigures,
    Report,
    Threat,
    Weakness,
)
from deepdefense.evaluation.statistics import Comparison, Curve, Distance
from deepdefense.seam.frozen_dict import FrozenDict

Array = npt.NDArray[Any]
N = 1000
LEVELS = (5, 10, 25, 50, 75, 90)
CHECKS = (
    "logits",
    "gradients",
    "zero_gradient",
    "determinism",
    "unbounded_attack",
    "more_steps",
    "restarts",
    "random_noise",
    "transfer",
    "black_box",
    "step_size",
    "curve_falls",
    "ball",
    "bounds",
    "verified",
    "loss_rises",
    "agreement",
    "dtype",
)


def draw_distances(scale: float, wrong: float = 0.01, censored: float = 0.003) -> Array:
    """Return random distances of N examples: 0 if misclassified, infinite if no attack succeeds."""
    rng = np.random.default_rng(0)
    distances = scale * rng.gamma(4.0, 0.28, N)
    chance = rng.uniform(size=N)
    distances[chance < wrong] = 0
    distances[chance > 1 - censored] = np.inf
    return distances


def to_finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def compute_accuracy(distances: Array) -> float:
    return float((distances > 0).mean())


def summarize(distances: Array) -> Distance:
    quantiles = np.percentile(distances, LEVELS, method="lower")
    return Distance(
        median=to_finite(np.percentile(distances, 50, method="lower")),
        quantiles=FrozenDict(
            {str(k): to_finite(q) for k, q in zip(LEVELS, quantiles, strict=True)}
        ),
        censored=int(np.isinf(distances).sum()),
        wrong=int((distances == 0).sum()),
    )


def make_curve(distances: Array) -> Curve:
    eps = np.linspace(0, 3.5, 50)
    robust = (distances[:, None] > eps).mean(0)
    spread = 1.96 * np.sqrt(robust * (1 - robust) / N)
    return Curve(*(tuple(a.tolist()) for a in (eps, robust, robust - spread, robust + spread)))


def make_minima(distances: Array) -> Minima:
    nothing = np.zeros(0)
    return Minima(2.0, distances, nothing, nothing.astype(int), nothing.astype(int))


def make_reference(distances: Array) -> ReferenceFigures:
    """Return the figures of an undefended network with these distances."""
    return ReferenceFigures(
        network=NetworkInfo("lenet", 431080, "plain"),
        accuracy=compute_accuracy(distances),
        rho_2=0.29,
        rho_2_median=0.28,
        success=1.0,
        iterations_mean=2.5,
        distance=summarize(distances),
        curve=make_curve(distances),
    )


def make_check(name: str, status: Status = "pass", severe: bool = True) -> Check:
    evidence = f"On {name.replace('_', ' ')} 997 of 1,000 examples behave, within 1e-06."
    remedy = f"Run the attacks again with what {name.replace('_', ' ')} asks for."
    return Check(name, status, evidence, remedy, severe)


def make_attack_line(name: str, kind: str, best: float, **settings: Any) -> AttackLine:
    return AttackLine(
        name=name,
        kind=kind,
        settings=FrozenDict(settings),
        ran=1000,
        success=0.61,
        median=1.6 if kind == "minimum-norm" else None,
        best=best,
        rejected=0,
        seconds=12.3,
    )


def make_report(
    distances: Array, before: Array | None = None, classes: int = 10, **changes: Any
) -> Report:
    """Return the report of an evaluation that found these distances; `changes` replace fields."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(3000 / classes**2 * rng.uniform(size=(classes, classes)) ** 3)
    np.fill_diagonal(counts, 0)
    eps, median = 1.0, summarize(distances).median
    robust = float((distances > eps).mean())
    data = {
        "name": "mnist",
        "test": N,
        "of": 10000,
        "classes": classes,
        "class_names": tuple(f"class {i}" if classes > 10 else str(i) for i in range(classes)),
        "input_shape": (1, 28, 28),
        "preprocessing": "pixels / 255",
        "fingerprint": "2b8f0c7d" * 8,
    }
    intervals = {
        "accuracy": (0.984, 0.996),
        "rho_2": (0.28, 0.3),
        "distance_median": (None, None) if median is None else (0.97 * median, 1.03 * median),
        "robust_accuracy": (robust - 0.02, robust + 0.02),
    }
    manifest = {
        "versions": {"python": "3.11.9", "numpy": "2.1.0", "deepdefense": "0.9"},
        "seeds": {"attacks": 0, "bootstrap": [1, 2]},
        "attacks": [
            {"name": "ddn", "steps": 200},
            {"name": "apgd", "eps": 0.03137254901960784},
        ],
        "deterministic": True,
        "notes": {},
    }
    report = Report(
        backend="torch",
        network=NetworkInfo("lenet", 431080, "hardened.safetensors"),
        data=FrozenDict(data),
        threat=Threat(2.0, "0 to 1"),
        preset="standard",
        seed=0,
        accuracy=compute_accuracy(distances),
        rho_2=0.29,
        rho_2_median=0.28,
        success=1.0,
        iterations_mean=2.5,
        n=N,
        headline=Headline(None, median, eps, robust),
        distance=summarize(distances),
        curve=make_curve(distances),
        intervals=FrozenDict(intervals),
        attacks=(
            make_attack_line(
                "deepfool", "minimum-norm", 0.02, steps=50, overshoot=0.02, candidates=10
            ),
            make_attack_line("ddn", "minimum-norm", 0.31, steps=200, gamma=0.05, init_eps=1.0),
            make_attack_line("fmn", "minimum-norm", 0.35, steps=200),
            make_attack_line(
                "apgd", "within eps", 0.32, eps=1.0, steps=100, restarts=5, loss="dlr"
            ),
        ),
        checks=tuple(make_check(name) for name in CHECKS),
        weakness=Weakness(
            tuple(map(tuple, counts.tolist())), tuple(rng.uniform(0.8, 2.2, classes).tolist())
        ),
        reference=None if before is None else make_reference(before),
        comparison=None
        if before is None
        else Comparison(1.82, (1.74, 1.93), 0.968, -0.001, (-0.004, 0.002)),
        manifest=FrozenDict(manifest),
        minima=make_minima(distances),
        reference_minima=None if before is None else make_minima(before),
        x=np.zeros(0),
        y=np.zeros(0, np.int64),
    )
    return replace(report, **changes)


def make_withheld_report(**headline: Any) -> Report:
    checks = (
        make_check("logits"),
        make_check("zero_gradient", "fail"),
        make_check("restarts", "warn"),
    )
    reason = "Gradients vanish on 41 % of the examples, so that attacks stand still"
    hidden = replace(Headline(reason, None, 1.0, None), **headline)
    return make_report(draw_distances(1.53), checks=checks, headline=hidden)


def make_weakest(channels: int = 1, size: int = 28) -> WeakestExamples:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    images = np.stack([np.exp(-30 * ((x - a) ** 2 + (y - 0.5) ** 2)) for a in (0.3, 0.5, 0.7)])
    images = np.repeat(images[..., None], channels, -1)
    return WeakestExamples(
        images=images,
        deltas=0.02 * rng.normal(size=images.shape) * (images > 0.1),
        labels=("cat", "dog", "emu"),
        fooled=("fox", "gnu", "hen"),
        distances=np.array([0.0123, 0.1, 0.2]),
        attacks=("ddn", "fmn", "apgd"),
        rows=(4711, 12, 9),
    )


HARD, PLAIN = draw_distances(1.53), draw_distances(0.84)


def make_comparison_report(before: float, after: float) -> Report:
    """Return a report that compares two networks of these accuracies."""
    return make_report(
        HARD, PLAIN, accuracy=after, reference=replace(make_reference(PLAIN), accuracy=before)
    )
