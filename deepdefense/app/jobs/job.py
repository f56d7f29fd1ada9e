"""Prepare a run of a command: its settings, backend, data, networks and run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepdefense.app.data import load_data
from deepdefense.app.jobs.defaults import find_defaults
from deepdefense.app.jobs.settings import DATA_OPTIONS, Panels
from deepdefense.app.load_network import (
    find_installed_framework,
    load_network_weights,
    make_network,
)
from deepdefense.app.run_folder import RunFolder, find_unfinished, name_new_folder
from deepdefense.app.threads import fit_training_threads
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.network_checks import count_logits
from deepdefense.training.recipe import Recipe

__all__ = ["Job", "open_backend", "open_job", "to_plain_options"]


@dataclass(frozen=True)
class Job:
    """The settings and the backend of one run of a command; `open_job` makes it.

    `resumed` is the run folder of the interrupted run that this run continues, or None for a new
    run. `out` is the folder that the user chose for a new run, or None to name it automatically.
    """

    settings: Mapping[str, Any]
    backend: TrainingBackend
    resumed: RunFolder | None
    out: Path | None
    watcher: Watcher
    contexts: ExitStack  # contexts that end with the job

    def load_data(self) -> Dataset:
        """Load the data that the settings name."""
        settings = self.settings
        names = ("data_dir", "seed", *DATA_OPTIONS)
        options = {name: settings[name] for name in names if name in settings}
        return load_data(settings["data"], **options)

    def load_network(self, data: Dataset, weights: str | None) -> Any:
        """Return the network that the settings name, with the weights in the file `weights`.

        If `weights` is None, the network keeps its initial weights.
        """
        name, seed = self.settings["network"], self.settings["seed"]
        path = None if weights is None else Path(weights)
        model = make_network(self.backend, name, data, seed, path)
        return model if path is None else load_network_weights(self.backend, model, path)

    def match_labels(self, data: Dataset, model: Any) -> Dataset:
        """Return `data` with labels that are classes of the network.

        Labels that are too large for the network are renumbered as 0, 1, ... if as many different
        labels occur as the network has logits. Otherwise they stay as they are, so that a label may
        skip a class.
        """
        logits = count_logits(self.backend, model, data)
        return data.renumber() if data.classes > logits == len(data.labels) else data

    def open_folder(self, data: Dataset, networks: Sequence[Any], changed: str) -> RunFolder:
        """Create the folder of a new run, or return the folder of the resumed run.

        Raises `InputError` if the data, or the weights of `networks`, differ from those with which
        a resumed run began. `changed` is the message of this error, with PATH for the folder.
        """
        fingerprints = {
            "data": data.fingerprint(),
            "weights": [fingerprint(self.backend.weights(model).values()) for model in networks],
        }
        settings = {**self.settings, "fingerprints": fingerprints}
        run = self.resumed
        if run is None:
            path = self.out or name_new_folder(settings["command"], settings)
            run = RunFolder.create(path, settings)
        elif not run.has_settings(settings):
            raise InputError(changed.replace("PATH", str(run.path)))
        self.watcher.say(f"writing to {run.path}")
        return run

    def fit_threads(self, model: Any, data: Dataset, recipe: Recipe, run: RunFolder) -> None:
        """Until the job ends, use the number of CPU threads that suits training the model."""
        self.contexts.enter_context(
            fit_training_threads(self.backend, model, data, recipe, run=run, watcher=self.watcher)
        )


@contextmanager
def open_job(
    command: str,
    panels: Panels,
    options: Mapping[str, Any],
    *,
    out: Path | None,
    resume: bool,
    watcher: Watcher,
) -> Iterator[Job]:
    """Prepare a run of a command, and yield the `Job` for the `with` block.

    A new run uses the given options, and defaults for all other settings. A resumed run uses the
    settings with which it began, and the given options must agree with them.
    """
    command_setting = {"command": command}
    plain_options = to_plain_options(options)
    resumed = None
    if resume:
        path = out or find_unfinished(command)
        resumed = RunFolder.resume(path, command_setting | plain_options)
        settings = resumed.settings
    else:
        settings = command_setting | find_defaults(panels, options) | plain_options
        settings["backend"] = settings["backend"] or find_installed_framework()
    with open_backend(settings) as backend, ExitStack() as contexts:
        yield Job(settings, backend, resumed, out, watcher, contexts)


@contextmanager
def open_backend(settings: Mapping[str, Any]) -> Iterator[TrainingBackend]:
    """Yield the backend that the settings name, switched to the device that the settings name.

    If the settings name no backend, yield the backend of the first installed framework.
    """
    backend = training_backend(settings["backend"] or find_installed_framework())
    with backend.on_device(settings["device"]):
        yield backend


def to_plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with each path as text, which JSON can hold."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }
