"""One run of the battery: train a network, harden it, train the rivals, and judge them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepdefense as dd
from benchmarks.battery.data import Examples
from benchmarks.battery.judge import Judge, Judgement
from benchmarks.battery.pairs import Pair
from benchmarks.battery.rivals import RATES, list_rivals, make_recipe
from benchmarks.training import train_network
from deepdefense.evaluation.accuracy import measure_accuracy
from deepdefense.evaluation.dataset import fingerprint
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.epoch import RejectedEpochError

__all__ = ["RUN_SCHEMA", "Options", "run_pair"]

RUN_SCHEMA = "deepdefense.battery-run/1"
PLAIN_RATE, PLAIN_BATCH = 1e-3, 64  # of the training of the given network
# The parts of the report that say what `harden` told its user.
TOLD = ("verdict", "no_gain", "stopped", "warnings", "notes")

Row = dict[str, Any]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Options:
    """The options of the battery that concern a run.

    - `data_dir`: the folder that contains MNIST and CIFAR-10, or None.
    - `only_default`: whether to leave out the rivals.
    - `steps`: the steps of each rival, or None for as many as the hardened network took.
    - `rates`: the learning rates of the rivals.
    """

    data_dir: Path | None = None
    only_default: bool = False
    steps: int | None = None
    rates: tuple[float, ...] = RATES


@dataclass(frozen=True, eq=False)
class _Problem:
    """A given network with its data, and the judge of all networks."""

    backend: TrainingBackend
    pair: Pair
    seed: int
    data: Examples
    model: Any
    judge: Judge
    given: Judgement


def run_pair(
    name: str,
    pair: Pair,
    framework: str,
    seed: int,
    options: Options,
    *,
    previous: Mapping[str, Any] | None,
    say: Say,
) -> Row:
    """Run one pair in one framework with one seed, and return the measurements.

    Rivals in the `previous` measurements of this run are not trained again if they took the same
    number of steps from the same network.
    """
    backend = training_backend(framework)
    data = pair.read(seed, options.data_dir)
    with dd.use_backend(framework):
        model = _train_plainly(backend, pair, seed, data)
        judge = Judge(backend, data.x_test, data.y_test, pair.bounds)
        problem = _Problem(backend, pair, seed, data, model, judge, judge.judge(model))
        default = _harden(problem)
        say(_describe_result("dd.harden", default, problem.given))
        weights = fingerprint(backend.weights(model).values())
        steps = options.steps or default["steps"]
        same = previous is not None and previous["given"]["weights"] == weights
        rivals = [row for row in previous["rivals"] if row["steps"] == steps] if same else []
        if not options.only_default:
            rivals = _train_rivals(problem, steps, options.rates, rivals, say)
    return {
        "schema": RUN_SCHEMA,
        "pair": name,
        "title": pair.title,
        "framework": framework,
        "seed": seed,
        "examples": [len(data.y_train), len(data.y_test)],
        "complete": not options.only_default,
        "given": {
            **problem.given.as_dict(),
            "training_accuracy": measure_accuracy(backend, model, data.x_train, data.y_train),
            "weights": weights,
        },
        "floor": judge.accuracy_floor(problem.given),
        "default": default,
        "rivals": rivals,
    }


def _train_plainly(backend: TrainingBackend, pair: Pair, seed: int, data: Examples) -> Any:
    """Return the given network: built, and trained by Adam on the cross-entropy alone."""
    with backend.fixed_seed(seed):
        model = pair.builders[backend.name](backend, seed)
    recipe = dd.Recipe(
        epochs=pair.epochs,
        optimizer="adam",
        lr=PLAIN_RATE,
        decay=1.0,
        weight_decay=0.0,
        batch_size=PLAIN_BATCH,
        seed=seed,
    )
    return train_network(
        backend, model, data.x_train, data.y_train, recipe=recipe, objective=dd.Objective()
    )


def _harden(problem: _Problem) -> Row:
    """Harden the network with no setting given, and return the measurements and what was told.

    `steps` is the number of optimizer steps of the training that made the returned network. If the
    given network came back, it is the number of steps that the recipe plans.
    """
    data = problem.data
    start = time.perf_counter()
    hardened, report = dd.harden(
        problem.model, (data.x_train, data.y_train), (data.x_test, data.y_test)
    )
    seconds = time.perf_counter() - start
    recipe, content = report.recipe, report.as_dict()
    planned = recipe.count_steps(len(data.y_train), recipe.periods)
    return {
        **problem.judge.compare(problem.given, hardened),
        "seconds": seconds,
        "steps": report.history[-1].steps if report.history else planned,
        "text": str(report),
        "told": {key: content.get(key) for key in TOLD},
        "config": content["config"],
    }


def _train_rivals(
    problem: _Problem, steps: int, rates: tuple[float, ...], measured: list[Row], say: Say
) -> list[Row]:
    """Train every rival at every learning rate, and return a row for each.

    A rival that has a row in `measured` is not trained again. A rival whose training diverges has a
    row with the reason as "failed", and no measurements.
    """
    rows = {(row["method"], row["lr"]): row for row in measured}
    rivals = list_rivals(problem.model, problem.data, problem.given.typical, problem.pair.bounds)
    for method, make_objective in rivals.items():
        for lr in rates:
            if (method, lr) not in rows:
                recipe = make_recipe(steps, lr, problem.seed)
                row = {"method": method, "lr": lr, "steps": steps}
                rows[method, lr] = row | _judge_rival(problem, recipe, make_objective)
            say(_describe_result(f"{method}, lr {lr:g}", rows[method, lr], problem.given))
    return list(rows.values())


def _judge_rival(
    problem: _Problem, recipe: dd.Recipe, make_objective: Callable[[], dd.Objective]
) -> Row:
    """Train one rival, and return its measurements, or the reason as "failed"."""
    start = time.perf_counter()
    try:
        rival = train_network(
            problem.backend,
            problem.model,
            problem.data.x_train,
            problem.data.y_train,
            recipe=recipe,
            objective=make_objective(),
        )
    except RejectedEpochError as error:
        return {"failed": str(error)}
    seconds = time.perf_counter() - start
    return {**problem.judge.compare(problem.given, rival), "seconds": seconds}


def _describe_result(title: str, row: Row, given: Judgement) -> str:
    """Return a line on one network."""
    if "failed" in row:
        return f"{title}: {row['failed']}"
    growth = "?" if row["growth"] is None else f"x{row['growth']:.2f}"
    points = 100 * (row["accuracy"] - given.accuracy)
    return f"{title}: {growth} at {points:+.1f} points, {row['seconds']:.0f} s"
