"""The paper's table: accuracy, robustness, and accuracy under the fast gradient sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from deepdefense.app.study import measurements
from deepdefense.app.study.experiment_runner import (
    ExperimentRunner,
    HardenedNetwork,
    StudyPlan,
    TableContent,
    TableRow,
    TrainedNetwork,
    describe_network,
    train_networks,
)
from deepdefense.errors import InputError
from deepdefense.evaluation import eps_ref

__all__ = ["make_table1"]

EPS_FRACTIONS = (0.2, 0.5, 1.0)  # of eps_ref
ACCURACY_LEVELS = (0.7, 0.5, 0.3)


def make_table1(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of accuracy, rho_2, distances, and accuracy under FGS at common eps.

    The eps are fractions of eps_ref, the FGS step that lowers the accuracy of one network to 50 %:
    Deep Defense's, or the last method's if that is not among the methods. `fgs_at` has the same for
    the eps_ref of every method at three levels of accuracy.
    """
    rows, curves = [], {}
    for seed in plan.seeds:
        networks = list(train_networks(runner, plan, seed))
        names = [network.method for network in networks]
        base_method = "deepdefense" if "deepdefense" in names else names[-1]
        eps_refs = {
            (network.method, level): eps
            for network in networks
            for level in ACCURACY_LEVELS
            if (eps := _find_eps_ref(runner, network, plan.examples, level)) is not None
        }
        base = eps_refs.get((base_method, 0.5))
        points = measurements.FGS_CURVE_POINTS
        grid = [] if base is None else np.linspace(0, 2 * base, points).tolist()
        for network in networks:
            accuracy = _measure_under_fgs(runner, network, plan.examples, eps_refs.values(), grid)
            rows.append(
                describe_network(runner, network)
                | _measure_robustness(runner, network, networks, plan.examples)
                | {"eps_ref": base, "eps_ref_of": base_method}
                | {
                    f"fgs_{fraction:g}": None if base is None else accuracy[fraction * base]
                    for fraction in EPS_FRACTIONS
                }
                | {"fgs_at": _tabulate_levels(eps_refs, accuracy)}
            )
            if seed == plan.seeds[0] and grid:
                curves[network.method] = {"eps": grid, "accuracy": [accuracy[eps] for eps in grid]}
    return TableContent(rows, {"fgs": curves})


def _measure_robustness(
    runner: ExperimentRunner,
    network: TrainedNetwork,
    networks: Sequence[TrainedNetwork],
    examples: int,
) -> TableRow:
    """Return a network's accuracy, rho_2 and distances; `networks` has the reference first."""
    reference, first_hardened, *_ = networks
    assert isinstance(first_hardened, HardenedNetwork)
    report = network.report if isinstance(network, HardenedNetwork) else None
    # Every run of hardening begins with the reference, and measures it.
    summary = first_hardened.report.before if report is None else report.after
    before, after = (
        measurements.measure_distances(each.model, runner.data, each.folder, examples)
        for each in (reference, network)
    )
    return {
        "epochs": None if report is None else len(report.history),
        "accuracy": summary.accuracy,
        "rho_2": summary.rho_2,
        "median_l2": after["median_l2"],
        "median_l2_deepfool": after["median_l2_deepfool"],
        "growth": _compute_growth(before["median_l2"], after["median_l2"]),
        "growth_deepfool": _compute_growth(
            before["median_l2_deepfool"], after["median_l2_deepfool"]
        ),
        "failing_checks": after["failing_checks"],
        "stopped": None if report is None else report.stopped,
    }


def _compute_growth(before: float | None, after: float | None) -> float | None:
    """Return after / before; None if either is missing or `before` is 0."""
    return None if after is None or not before else after / before


def _find_eps_ref(
    runner: ExperimentRunner, network: TrainedNetwork, examples: int, level: float
) -> float | None:
    """Return the FGS step that lowers accuracy to the level; None if it never is above that."""
    x, y = runner.data.x_test[:examples], runner.data.y_test[:examples]
    try:
        return float(f"{eps_ref(network.model, x, y, level=level):.4g}")
    except InputError:
        return None


def _measure_under_fgs(
    runner: ExperimentRunner,
    network: TrainedNetwork,
    examples: int,
    eps_refs: Iterable[float],
    grid: Sequence[float],
) -> dict[float, float]:
    """Return accuracy under FGS by eps: each fraction of each eps_ref, and the grid."""
    fractions = [fraction * eps for eps in eps_refs for fraction in EPS_FRACTIONS]
    sizes = sorted({*fractions, *grid})
    accuracy = measurements.measure_fgs(network.model, runner.data, sizes, examples)
    return dict(zip(sizes, accuracy, strict=True))


def _tabulate_levels(
    eps_refs: Mapping[tuple[str, float], float], accuracy: Mapping[float, float]
) -> dict[str, dict[str, float]]:
    """Return accuracy at fractions of each method's eps_ref at each level."""
    return {
        f"{method} at {level:.0%}": {"eps": eps}
        | {f"{fraction:g}": accuracy[fraction * eps] for fraction in EPS_FRACTIONS}
        for (method, level), eps in eps_refs.items()
    }
