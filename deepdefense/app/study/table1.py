"""Make the paper's table of accuracy, rho_2, and accuracy under the fast gradient sign (FGS)."""

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

# FGS attacks with each of these fractions of an eps_ref as its eps.
EPS_FRACTIONS = (0.2, 0.5, 1.0)

# For each network and each of these levels, eps_ref is the eps at which FGS lowers the network's
# accuracy to the level.
ACCURACY_LEVELS = (0.7, 0.5, 0.3)


def make_table1(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of accuracy, rho_2, distances, and accuracy under FGS.

    For each seed, eps_ref is the eps at which FGS lowers the accuracy of one network to 50 %. This
    is the network of the method "deepdefense" or, if the plan lacks it, of the plan's last method.
    FGS attacks all networks of the seed at eps = fraction * eps_ref, for each fraction in
    EPS_FRACTIONS.

    The entry `fgs_at` of a row holds accuracy under FGS for other values of eps_ref: one for each
    network of the seed and each of the ACCURACY_LEVELS.
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
    """Return the entries for accuracy, rho_2 and distances in the row of `network`.

    `networks` are all networks with the same seed, the reference network first.
    """
    reference, first_hardened, *_ = networks
    assert isinstance(first_hardened, HardenedNetwork)
    report = network.report if isinstance(network, HardenedNetwork) else None
    # Every hardening run of a seed measures the same reference network, so use the first report.
    summary = first_hardened.report.before if report is None else report.after
    before, after = (
        measurements.evaluate_distances(each.model, runner.data, each.folder, examples)
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
    """Return `after` / `before`; None if either is None or `before` is 0."""
    return None if after is None or not before else after / before


def _find_eps_ref(
    runner: ExperimentRunner, network: TrainedNetwork, examples: int, level: float
) -> float | None:
    """Return the eps at which FGS lowers accuracy to `level`.

    Return None if accuracy is already at `level` without an attack, or never falls to it.
    """
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
    """Return {eps: accuracy of `network` under FGS}.

    The keys are the values of `grid`, and fraction * eps_ref for every fraction in EPS_FRACTIONS
    and every eps_ref in `eps_refs`.
    """
    fractions = [fraction * eps for eps in eps_refs for fraction in EPS_FRACTIONS]
    sizes = sorted({*fractions, *grid})
    accuracy = measurements.measure_fgs(network.model, runner.data, sizes, examples)
    return dict(zip(sizes, accuracy, strict=True))


def _tabulate_levels(
    eps_refs: Mapping[tuple[str, float], float], accuracy: Mapping[float, float]
) -> dict[str, dict[str, float]]:
    """Return the entry `fgs_at` of a row, which has accuracy under FGS for each eps_ref.

    The keys of `eps_refs` are (method, accuracy level). `accuracy` maps eps to accuracy under FGS.
    """
    return {
        f"{method} at {level:.0%}": {"eps": eps}
        | {f"{fraction:g}": accuracy[fraction * eps] for fraction in EPS_FRACTIONS}
        for (method, level), eps in eps_refs.items()
    }
