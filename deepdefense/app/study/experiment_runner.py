"""Train the networks of one experiment, and keep each in a run folder.

An experiment has, for each seed, an undefended reference network and one network for each method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.load_network import load_network_weights
from deepdefense.app.run_folder import HARDENED_FILE, REPORT_FILE, RunFolder, load_weights
from deepdefense.app.study.experiments import Experiment
from deepdefense.app.study.methods import METHODS, NEAREST_POINT, Scale
from deepdefense.app.study.run_report import RunReport, read_report
from deepdefense.app.training_in_folder import harden_in_folder, train_reference
from deepdefense.attacks.deepfool import deepfool
from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.evaluation.fgs_accuracy import eps_ref, fgs_accuracy
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import prepare_monitor
from deepdefense.training.network_checks import count_weights
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import describe_objective
from deepdefense.zoo import NETWORKS, Network, initial_weights

__all__ = [
    "ExperimentRunner",
    "HardenedNetwork",
    "ReferenceModel",
    "StudyPlan",
    "TableContent",
    "TableRow",
    "TrainedNetwork",
    "describe_network",
    "prepare_reference",
    "train_networks",
]

TableRow = dict[str, Any]

# `measure_scale` uses SCALE_EXAMPLES training examples, drawn at random with SCALE_SEED.
SCALE_EXAMPLES, SCALE_SEED = 1000, 3


@dataclass(frozen=True)
class TrainedNetwork:
    """A network of the study and its run folder. `method` is "reference" if it is undefended."""

    method: str
    seed: int
    model: Any
    folder: Path


@dataclass(frozen=True)
class HardenedNetwork(TrainedNetwork):
    """A network that a method fine-tuned, with the report of the run that did so."""

    report: RunReport


class ReferenceModel(NamedTuple):
    """The undefended reference network, and a phrase that says where its weights come from."""

    model: Any
    origin: str


class StudyPlan(NamedTuple):
    """What a table covers: methods, seeds, and the number of held-out examples to attack."""

    methods: Sequence[str]
    seeds: Sequence[int]
    examples: int
    weights: Path | None  # the file of the reference network's weights; None: train the network


class TableContent(NamedTuple):
    """The rows of a table, and its curves by the name of their chart, such as "fgs"."""

    rows: list[TableRow]
    curves: dict[str, Any]


@dataclass(frozen=True, eq=False)
class ExperimentRunner:
    """Trains the networks of an experiment; each has a run folder inside `folder`.

    If `epochs` is not None, it replaces the experiment's number of epochs of hardening, and the
    reference network is trained for at most 4 * `epochs` epochs.
    """

    experiment: Experiment
    backend: TrainingBackend
    data: Dataset
    folder: Path
    watcher: Watcher
    epochs: int | None = None

    @cached_property
    def data_fingerprint(self) -> str:
        """The fingerprint of the data; run folders store it to detect that the data changed."""
        return self.data.fingerprint()

    @property
    def description(self) -> Network:
        """The zoo's description of the network, for the input shape and the classes of the data."""
        return NETWORKS[self.experiment.network](self.data.x_train.shape[1:], self.data.classes)

    def build_network(self, seed: int) -> Any:
        """Return the network of the experiment as a model with random initial weights."""
        deviation = float(self.data.x_train.std()) or 1.0
        weights = initial_weights(self.description, seed, deviation)
        return self.backend.build(self.description, weights)

    def get_reference(self, weights: Path | None, seed: int) -> ReferenceModel:
        """Return the undefended reference network, with the weights in the file `weights`.

        If `weights` is None, load the weights from the run folder of the network, or train the
        network if the folder has none.
        """
        model, path = self.build_network(seed), self.folder / f"reference-{seed}"
        settings = {"command": "reference", "data": self.data_fingerprint}
        if weights is not None:
            model = load_network_weights(self.backend, model, weights)
            RunFolder.reuse(path, {**settings, "weights": self._fingerprint_weights(model)})
            return ReferenceModel(model, weights.name)
        recipe = replace(self.experiment.reference, seed=seed)
        if self.epochs is not None:
            recipe = replace(recipe, epochs=min(recipe.epochs, 4 * self.epochs))
        origin = f"trained in this study, {recipe.epochs} epochs"
        model = train_reference(
            self.backend,
            model,
            self.data,
            recipe,
            run=RunFolder.reuse(path, {**settings, "recipe": repr(recipe)}),
            file=HARDENED_FILE,
            about={"origin": origin},
            announcement=f"{self.experiment.name}: training the reference network, seed {seed}",
            watcher=self.watcher,
        )
        return ReferenceModel(model, origin)

    def measure_scale(self, model: Any) -> Scale:
        """Measure the reference network `model` on training examples, and return its `Scale`."""
        rows = np.random.default_rng(SCALE_SEED).permutation(len(self.data.x_train))
        rows = rows[:SCALE_EXAMPLES]
        x, y = self.data.x_train[rows], self.data.y_train[rows]
        perturbation = deepfool(model, self.backend.asarray(x, model), **RHO_ATTACK)
        delta = self.backend.to_numpy(perturbation.delta).reshape(len(x), -1)
        [accuracy] = fgs_accuracy(model, x, y, [0.0])
        level = 0.5 if accuracy > 0.5 else accuracy / 2

        def fit(method: str, **settings: Any) -> DeepDefense:
            defense = DeepDefense(**{**self.experiment.defense, **settings})
            steepness = self.experiment.get_hardening(method).steepness
            return fit_penalty(self.backend, model, x, y, defense, seed=0, steepness=steepness)

        return Scale(
            fgs=float(f"{eps_ref(model, x, y, level=level):.3g}"),
            distance=float(f"{np.median(np.linalg.norm(delta, axis=1)):.3g}"),
            fitted=fit("deepdefense"),
            image=fit("image", **NEAREST_POINT, bounds=self.data.pixel_bounds()),
        )

    def fine_tune(
        self,
        name: str,
        seed: int,
        reference: ReferenceModel,
        scale: Scale,
        *,
        tag: str | None = None,
        objective: Objective | None = None,
    ) -> HardenedNetwork:
        """Return the reference network fine-tuned by the method `name`.

        If the run folder already holds the fine-tuned network, load it. If `objective` replaces the
        method's objective, `tag` must name another folder than that of the method.
        """
        method = METHODS[name]
        recipe = replace(self.experiment.get_hardening(name).recipe, seed=seed)
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs)
        recipe = method.adapt_recipe(recipe, len(self.data.x_train))
        objective = method.make_objective(scale) if objective is None else objective
        settings = {
            "command": "reproduce",
            "method": {key: repr(value) for key, value in describe_objective(objective).items()},
            "recipe": repr(recipe),
            "weights": self._fingerprint_weights(reference.model),
            "data": self.data_fingerprint,
        }
        run = RunFolder.reuse(self.folder / f"{tag or name}-{seed}", settings)
        if not run.is_finished:
            self.watcher.say(f"{self.experiment.name}: {method.label}, seed {seed}: {run.path}")
            self._harden(reference, objective, recipe, run)
        weights = load_weights(run.path / HARDENED_FILE)
        model = self.backend.load(self.build_network(seed), weights)
        report = read_report(run.path / REPORT_FILE)
        return HardenedNetwork(tag or name, seed, model, run.path, report)

    def _harden(
        self, reference: ReferenceModel, objective: Objective, recipe: Recipe, run: RunFolder
    ) -> None:
        model, guard = reference.model, Guard()
        harden_in_folder(
            self.backend,
            model,
            prepare_monitor(self.backend, model, self.data, recipe, guard),
            network=NetworkInfo(
                self.experiment.network, count_weights(self.backend, model), reference.origin
            ),
            defense=objective,
            recipe=recipe,
            guard=guard,
            run=run,
            watcher=self.watcher,
        )

    def _fingerprint_weights(self, model: Any) -> str:
        return fingerprint(self.backend.weights(model).values())


def describe_network(runner: ExperimentRunner, network: TrainedNetwork) -> TableRow:
    """Return the entries that identify a network, with which every row of a table begins."""
    is_reference = network.method == "reference"
    return {
        "network": runner.experiment.network,
        "data": runner.experiment.data,
        "method": network.method,
        "label": "reference" if is_reference else METHODS[network.method].label,
        "seed": network.seed,
    }


def prepare_reference(
    runner: ExperimentRunner, plan: StudyPlan, seed: int
) -> tuple[ReferenceModel, Scale]:
    """Return the reference network and its `Scale`.

    The network is trained only if neither the plan nor the run folder provides its weights.
    """
    reference = runner.get_reference(plan.weights, seed)
    return reference, runner.measure_scale(reference.model)


def train_networks(
    runner: ExperimentRunner, plan: StudyPlan, seed: int
) -> Iterator[TrainedNetwork]:
    """Yield the reference network, then the network that each method of the plan fine-tunes."""
    reference, scale = prepare_reference(runner, plan, seed)
    folder = runner.folder / f"reference-{seed}"
    yield TrainedNetwork("reference", seed, reference.model, folder)
    for name in plan.methods:
        yield runner.fine_tune(name, seed, reference, scale)
