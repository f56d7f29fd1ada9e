"""What a command opens before it computes: settings, backend, data, networks, the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepdefense.app.data import load_data
from deepdefense.app.jobs.settings import Panels, find_defaults
from deepdefense.app.load_network import (
    find_installed_framework,
    load_network_weights,
    make_network,
)
from deepdefense.app.run_folder import RunFolder, find_unfinished, name_new_folder
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend, training_backend

__all__ = ["Job", "open_backend", "open_job", "to_plain_options"]


@dataclass(frozen=True)
class Job:
    """A run of a command: its settings and backend, and the folder that it resumes, if any."""

    settings: Mapping[str, Any]
    backend: TrainingBackend
    resumed: RunFolder | None
    out: Path | None
    watcher: Watcher

    def load_data(self) -> Dataset:
        """Load the data of the settings."""
        settings = self.settings
        return load_data(settings["data"], data_dir=settings["data_dir"], seed=settings["seed"])

    def load_network(self, data: Dataset, weights: str | None) -> Any:
        """Make the network of the settings, with the weights of a file if one is given."""
        name, seed = self.settings["network"], self.settings["seed"]
        model = make_network(self.backend, name, data, seed)
        if weights is None:
            return model
        return load_network_weights(self.backend, model, Path(weights))

    def open_folder(self, data: Dataset, networks: Sequence[Any], changed: str) -> RunFolder:
        """Create the run's folder, or resume in it if data and weights are still the same.

        Nothing is written before. `changed` is the error where they differ; PATH in it becomes the
        folder.
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
    """Open a command's job; inside, new models and arrays are on the device of the settings.

    A new run has the options given, and defaults for the others. A resumed run keeps the settings
    that it began with.
    """
    command_setting = {"command": command}
    plain_options = to_plain_options(options)
    resumed = None
    if resume:
        path = out or find_unfinished(command)
        resumed = RunFolder.resume(path, command_setting | plain_options)
        settings = resumed.settings
    else:
        settings = command_setting | find_defaults(panels, options.get("data")) | plain_options
        settings["backend"] = settings["backend"] or find_installed_framework()
    with open_backend(settings) as backend:
        yield Job(settings, backend, resumed, out, watcher)


@contextmanager
def open_backend(settings: Mapping[str, Any]) -> Iterator[TrainingBackend]:
    """Open the backend of the settings, or the first that is installed, on their device."""
    backend = training_backend(settings["backend"] or find_installed_framework())
    with backend.on_device(settings["device"]):
        yield backend


def to_plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON can hold them: paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }
