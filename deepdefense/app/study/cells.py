"""One cell of a study: a network fine-tuned by one method with one seed, trained once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.networks import load_network_weights
from deepdefense.app.runs import HARDENED, REPORT, RunFolder, load_weights
from deepdefense.app.study.experiments import Experiment
from deepdefense.app.study.methods import METHODS, NEAREST_POINT, Scale
from deepdefense.app.study.run_report import RunReport, read_report
from deepdefense.app.training import harden_in_folder, train_reference
from deepdefense.attacks.deepfool import deepfool
from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.evaluation.fgs import eps_ref, fgs_accuracy
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import TrainingBackend
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import count_weights, prepare_monitor
from deepdefense.training.report import describe_objective
from deepdefense.zoo import NETWORKS, Network, initial_weights

__all__ = [
    "Bench",
    "HardenedNetwork",
    "StudyPlan",
    "TableContent",
    "TableRow",
    "TrainedNetwork",
    "about",
    "started",
    "trained",
]

TableRow = dict[str, Any]


SCALE_EXAMPLES = 1000


@dataclass(frozen=True)
class TrainedNetwork:
    """What was trained, by which settings, and what came of it."""

    method: str
    seed: int
    model: Any
    folder: Path


@dataclass(frozen=True)
class HardenedNetwork(TrainedNetwork):
    """A network that was fine-tuned by a method, with the report of that run."""

    report: RunReport


class StudyPlan(NamedTuple):
    """What to run: methods and seeds, and how many held-out examples attacks are shown."""

    methods: Sequence[str]
    seeds: Sequence[int]
    examples: int
    weights: Path | None  # of the reference network


class TableContent(NamedTuple):
    """A table's rows, and curves by the name of what they show."""

    rows: list[TableRow]
    curves: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bench:
    """An experiment with its data in memory, a folder for its cells, and its reference network."""

    experiment: Experiment
    backend: TrainingBackend
    data: Dataset
    folder: Path
    watcher: Watcher
    epochs: int | None = None  # instead of the experiment's

    @cached_property
    def data_fingerprint(self) -> str:
        """Of the data."""
        return self.data.fingerprint()

    def _weights(self, model: Any) -> str:
        return fingerprint(self.backend.weights(model).values())

    @property
    def network(self) -> Network:
        """Its description."""
        return NETWORKS[self.experiment.network](self.data.x_train.shape[1:], self.data.classes)

    def blank(self, seed: int) -> Any:
        """The network with initial weights."""
        deviation = float(self.data.x_train.std()) or 1.0
        return self.backend.build(self.network, initial_weights(self.network, seed, deviation))

    def reference(self, given: Path | None, seed: int) -> tuple[Any, str]:
        """The undefended network: from a file, or trained here once; and where it is from."""
        model, path = self.blank(seed), self.folder / f"reference-{seed}"
        settings = {"command": "reference", "data": self.data_fingerprint}
        if given is not None:
            model = load_network_weights(self.backend, model, given)
            RunFolder.reuse(path, {**settings, "weights": self._weights(model)})
            return model, given.name
        recipe = replace(self.experiment.reference, seed=seed)
        if self.epochs is not None:
            recipe = replace(recipe, epochs=min(recipe.epochs, 4 * self.epochs))
        origin = f"trained in this study, {recipe.epochs} epochs"
        reference = train_reference(
            self.backend,
            model,
            self.data,
            recipe,
            run=RunFolder.reuse(path, {**settings, "recipe": repr(recipe)}),
            file=HARDENED,
            about={"origin": origin},
            announcement=f"{self.experiment.name}: training the reference network, seed {seed}",
            watcher=self.watcher,
        )
        return reference, origin

    def scale(self, reference: Any) -> Scale:
        """The reference network's own scale, on training examples."""
        rows = np.random.default_rng(3).permutation(len(self.data.x_train))[:SCALE_EXAMPLES]
        x, y = self.data.x_train[rows], self.data.y_train[rows]
        found = deepfool(reference, self.backend.asarray(x, reference), **RHO_ATTACK)
        delta = self.backend.to_numpy(found.delta).reshape(len(x), -1)
        [clean] = fgs_accuracy(reference, x, y, [0.0])
        level = 0.5 if clean > 0.5 else clean / 2

        def penalty(method: str, **settings: Any) -> DeepDefense:
            defense = DeepDefense(**{**self.experiment.defense, **settings})
            steepness = self.experiment.hardening(method).steepness
            return fit_penalty(self.backend, reference, x, y, defense, seed=0, steepness=steepness)

        return Scale(
            fgs=float(f"{eps_ref(reference, x, y, level=level):.3g}"),
            distance=float(f"{np.median(np.linalg.norm(delta, axis=1)):.3g}"),
            fitted=penalty("deepdefense"),
            image=penalty("image", **NEAREST_POINT, bounds=self.data.pixel_bounds()),
        )

    def cell(
        self,
        name: str,
        seed: int,
        reference: tuple[Any, str],
        scale: Scale,
        *,
        tag: str | None = None,
        objective: Objective | None = None,
        epochs: int | None = None,
    ) -> HardenedNetwork:
        """The reference network fine-tuned by a method, unless the folder has it already.

        An `objective` of other settings instead of the method's own needs a `tag` for its folder.
        """
        (model, origin), chosen = reference, METHODS[name]
        recipe = replace(self.experiment.hardening(name).recipe, seed=seed)
        limit = epochs or self.epochs
        recipe = chosen.recipe(recipe if limit is None else replace(recipe, epochs=limit))
        objective = chosen.objective(scale) if objective is None else objective
        path, guard = self.folder / f"{tag or name}-{seed}", Guard()
        settings = {
            "command": "reproduce",
            "method": {key: repr(value) for key, value in describe_objective(objective).items()},
            "recipe": repr(recipe),
            "weights": self._weights(model),
            "data": self.data_fingerprint,
        }
        run = RunFolder.reuse(path, settings)
        if not run.is_finished:
            self.watcher.say(f"{self.experiment.name}: {chosen.label}, seed {seed}: {path}")
            info = NetworkInfo(self.experiment.network, count_weights(self.backend, model), origin)
            harden_in_folder(
                self.backend,
                model,
                prepare_monitor(self.backend, model, self.data, recipe, guard),
                network=info,
                defense=objective,
                recipe=recipe,
                guard=guard,
                run=run,
                watcher=self.watcher,
            )
        hardened = self.backend.load(self.blank(seed), load_weights(path / HARDENED))
        report = read_report(path / REPORT)
        return HardenedNetwork(tag or name, seed, hardened, path, report)


def about(bench: Bench, cell: TrainedNetwork) -> TableRow:
    """What every table says of a cell."""
    label = "reference" if cell.method == "reference" else METHODS[cell.method].label
    return {
        "network": bench.experiment.network,
        "data": bench.experiment.data,
        "method": cell.method,
        "label": label,
        "seed": cell.seed,
    }


def started(
    bench: Bench, plan: StudyPlan, seed: int
) -> tuple[tuple[Any, str], Scale, TrainedNetwork]:
    """The reference network, its scale, and itself as a cell."""
    reference = bench.reference(plan.weights, seed)
    folder = bench.folder / f"reference-{seed}"
    return (
        reference,
        bench.scale(reference[0]),
        TrainedNetwork("reference", seed, reference[0], folder),
    )


def trained(bench: Bench, plan: StudyPlan, seed: int) -> Iterator[TrainedNetwork]:
    """The reference, and each method's network."""
    reference, scale, first = started(bench, plan, seed)
    yield first
    for name in plan.methods:
        yield bench.cell(name, seed, reference, scale)
