"""A stage of training, epoch by epoch, that can be interrupted, resumed and stopped in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.data import Dataset
from deepdefense.defense import DeepDefense
from deepdefense.evaluation.rho import measure
from deepdefense.runs import CHECKPOINT, RunFolder
from deepdefense.training import DivergedError, Recipe, Trainer, TrainingBackend, train_epoch
from deepdefense.watcher import Watcher

__all__ = ["Assessor", "EpochRecord", "run_stage"]

# Training accuracy that falls this far below where it began is a collapse, not a trade-off.
COLLAPSE = 0.10
# Enough for a curve: the standard error of a mean rho is then about 2 % of it.
CURVE_EXAMPLES, WATCHED_EXAMPLES = 1000, 2000
LINES = 10  # about so many lines of progress for a stage


@dataclass(frozen=True)
class EpochRecord:
    """One complete epoch; accuracy and rho_2 are of held-out data, rho_2 of a sample of it."""

    epoch: int
    loss: float
    cross_entropy: float
    penalty: float
    unfinished: float
    accuracy: float
    rho_2: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Assessor:
    """What is looked at after every epoch, on the same examples each time.

    `watched` training examples tell whether training has collapsed, so that held-out data decide
    nothing; `curve` held-out ones give rho_2.
    """

    backend: TrainingBackend
    data: Dataset
    watched: npt.NDArray[np.int64]
    curve: npt.NDArray[np.int64]
    attack: Mapping[str, Any]

    @classmethod
    def draw(
        cls, backend: TrainingBackend, data: Dataset, seed: int, attack: Mapping[str, Any]
    ) -> Assessor:
        """Choose the examples, by the seed."""
        random = np.random.default_rng((seed, 1))
        watched = random.permutation(len(data.x_train))[:WATCHED_EXAMPLES]
        return cls(
            backend, data, watched, random.permutation(len(data.x_test))[:CURVE_EXAMPLES], attack
        )

    def accuracy(self, model: Any, x: Any, y: Any, batch_size: int = 500) -> float:
        """The share of examples [n] that the model gets right."""
        right = 0
        with self.backend.inference(model) as f:
            for start in range(0, len(x), batch_size):
                batch = self.backend.asarray(x[start : start + batch_size], model)
                logits = self.backend.to_numpy(self.backend.forward(f, batch))
                right += int((logits.argmax(1) == y[start : start + batch_size]).sum())
        return right / len(x)

    def training_accuracy(self, model: Any) -> float:
        """Accuracy on the watched training examples."""
        rows = self.watched
        return self.accuracy(model, self.data.x_train[rows], self.data.y_train[rows])

    def held_out(self, model: Any, *, attacked: bool) -> tuple[float, float | None]:
        """Accuracy on the test set, and rho_2 on the sample."""
        x, y = self.data.x_test, self.data.y_test
        accuracy = self.accuracy(model, x, y)
        if not attacked:
            return accuracy, None
        found = measure(model, x[self.curve], y[self.curve], backend=self.backend, **self.attack)
        return accuracy, float(found.rho.mean())


def run_stage(
    name: str,
    trainer: Trainer,
    assessor: Assessor,
    *,
    recipe: Recipe,
    defense: DeepDefense | None,
    run: RunFolder | None,
    watcher: Watcher,
) -> tuple[tuple[EpochRecord, ...], str | None]:
    """Train for the recipe's epochs; the history, and why it ended early, if it did.

    After each complete epoch its state is the run's checkpoint; an interrupted stage goes on from
    there to the same result. A loss or gradient that is not finite, and a collapse of the training
    accuracy, end the stage with the trainer back at its last good epoch.
    """
    backend, data = assessor.backend, assessor.data
    floor = assessor.training_accuracy(trainer.model) - COLLAPSE if defense else 0.0
    history: list[EpochRecord] = []
    stopped: str | None = None
    saved = run.load(CHECKPOINT) if run else None
    if saved and saved[1]["stage"] == name:
        trainer.restore(saved[0])
        history = [EpochRecord(**record) for record in saved[1]["history"]]
        stopped = saved[1]["stopped"]
        watcher.say(f"resumed after epoch {len(history)} of {recipe.epochs}")

    def keep(state: Mapping[str, npt.NDArray[Any]]) -> None:
        if run:
            records = [asdict(record) for record in history]
            about = {"stage": name, "history": records, "stopped": stopped}
            run.save(CHECKPOINT, state, about)

    good = trainer.state()
    steps = -(-len(data.x_train) // recipe.batch_size)
    watcher.begin(name, recipe.epochs * steps)
    while len(history) < recipe.epochs and stopped is None:
        epoch = len(history)

        def progress(step: int, done: int = epoch * steps) -> None:
            watcher.advance(done + step)

        try:
            means = train_epoch(
                backend,
                trainer,
                data.x_train,
                data.y_train,
                recipe=recipe,
                defense=defense,
                epoch=epoch,
                progress=progress,
            )
            state = trainer.state()
            if not all(np.isfinite(value).all() for value in state.values()):
                raise DivergedError(f"the weights were no longer finite after epoch {epoch + 1}")
            reached = assessor.training_accuracy(trainer.model)
            if reached < floor:
                raise DivergedError(
                    f"training accuracy collapsed in epoch {epoch + 1}: "
                    f"{reached:.1%}, from {floor + COLLAPSE:.1%}"
                )
        except DivergedError as error:
            trainer.restore(good)
            kept = f"the weights of epoch {epoch} are kept" if epoch else "nothing was changed"
            stopped = f"{error}; {kept}. Try a lower learning rate, lam or c."
            watcher.say(f"stopped: {stopped}")
            keep(good)
            break
        accuracy, rho_2 = assessor.held_out(trainer.model, attacked=defense is not None)
        history.append(EpochRecord(epoch + 1, *means[:4], accuracy, rho_2, means.seconds))
        good = state
        keep(good)
        robust = "" if rho_2 is None else f", rho_2 {rho_2:.4f}"
        if (epoch + 1) % max(1, recipe.epochs // LINES) and epoch + 1 < recipe.epochs:
            continue
        watcher.say(
            f"{name} epoch {epoch + 1}/{recipe.epochs}: loss {means.loss:.4f}, "
            f"held-out accuracy {accuracy:.2%}{robust}, {means.seconds:.1f} s"
        )
    return tuple(history), stopped
