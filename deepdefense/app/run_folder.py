"""The folder on disk that holds the files of one run of a command.

Every file is written completely or not at all, and a run never overwrites another run.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError

__all__ = [
    "CHECKPOINT_FILE",
    "HARDENED_FILE",
    "PREPROCESSING_FILE",
    "REFERENCE_FILE",
    "REPORT_FILE",
    "THREADS_FILE",
    "RunFolder",
    "WeightArrays",
    "find_latest",
    "find_unfinished",
    "load_weights",
    "name_new_folder",
]

SETTINGS_FILE, REPORT_FILE = "settings.json", "report.json"
CHECKPOINT_FILE, ATTACK_SUFFIX = "checkpoint.safetensors", ".part.safetensors"
THREADS_FILE = "threads.json"
REFERENCE_FILE, HARDENED_FILE = "reference.safetensors", "hardened.safetensors"
PREPROCESSING_FILE = "preprocessing.safetensors"
WeightArrays = Mapping[str, npt.NDArray[Any]]


def _import_safetensors() -> Any:
    try:
        import safetensors.numpy as library
    except ModuleNotFoundError as error:
        raise ImportError('weights on disk need: pip install "deepdefense[cli]"') from error
    return library


@dataclass(frozen=True)
class RunCheckpoint:
    """The file in a run folder that holds the state of training after the last complete epoch.

    It implements `deepdefense.training.loop.Checkpoint`.
    """

    run: RunFolder

    def load(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """Return the arrays and facts of the last call of `save`, or None if there was none."""
        return self.run.load(CHECKPOINT_FILE)

    def save(self, arrays: WeightArrays, about: Mapping[str, Any]) -> None:
        """Save arrays and the facts `about` them, in place of those saved before."""
        self.run.save(CHECKPOINT_FILE, arrays, about)


@dataclass(frozen=True)
class AttackStorage:
    """The files in a run folder that hold results of attacks: one file per attack and batch.

    It implements `deepdefense.evaluation.cache.Storage`.
    """

    run: RunFolder

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were saved under a name, or None if there are none."""
        saved = self.run.load(f"{name}{ATTACK_SUFFIX}")
        return None if saved is None else saved[0]

    def save(self, name: str, arrays: WeightArrays, attack: str) -> None:
        """Save arrays under a name, with a description of the attack that computed them."""
        self.run.save(f"{name}{ATTACK_SUFFIX}", arrays, {"attack": attack})

    def clear(self) -> None:
        """Delete all stored results of attacks, once the report is written and holds them."""
        for part in self.run.path.glob(f"*{ATTACK_SUFFIX}"):
            self.run.remove(part.name)


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run: its settings, its checkpoint and its results.

    `create` begins a run, `resume` continues an unfinished run, and `reuse` begins a run unless the
    folder already holds one. A run never continues with settings that differ from those with which
    it began.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """Begin a run in a new or empty folder, and write its settings."""
        _import_safetensors()
        run = cls(path)
        if path.is_dir() and any(path.iterdir()):
            doing = "go on with resume, or " if run.is_begun else ""
            raise InputError(f"{path} is not empty: {doing}choose another folder")
        run.write(SETTINGS_FILE, json.dumps(settings, indent=2))
        return run

    @classmethod
    def resume(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """Return the unfinished run in a folder, which must have begun with these settings.

        `settings` must include the command and may leave out others, which are not compared. Raises
        `InputError` if a setting differs, or if the folder holds no unfinished run of the command.
        """
        run, command = cls(path), settings["command"]
        if not run.is_begun:
            raise InputError(f"there is no run to resume in {path}")
        if run.command != command:
            raise InputError(f"the run in {path} is of {run.command}, not of {command}")
        if run.is_finished:
            raise InputError(f"the run in {path} is complete: there is nothing to resume")
        for name, value in settings.items():
            began = run.settings.get(name)
            if began != json.loads(json.dumps(value)):
                raise InputError(
                    f"the run in {path} began with {name} = {began}, not {value}: "
                    "resume it as it began, or start another"
                )
        return run

    @classmethod
    def reuse(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """Return the run in a folder, finished or not, or begin a run if the folder has none.

        Raises `InputError` if the folder holds a run with other settings.
        """
        run = cls(path)
        if not run.is_begun:
            return cls.create(path, settings)
        if not run.has_settings(settings):
            raise InputError(f"{path} was made with other settings: choose another --out")
        return run

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.path / SETTINGS_FILE).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a report, which is the last file that a run writes."""
        return (self.path / REPORT_FILE).exists()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings with which the run began."""
        return dict(self._read_json(SETTINGS_FILE))

    @property
    def command(self) -> str:
        """The name of the command that began the run, such as `harden`."""
        return str(self.settings.get("command"))

    @property
    def checkpoint(self) -> RunCheckpoint:
        """The checkpoint file, in which training saves its last complete epoch."""
        return RunCheckpoint(self)

    @property
    def attack_storage(self) -> AttackStorage:
        """The files in which an evaluation saves results of attacks until the report is written."""
        return AttackStorage(self)

    def has_settings(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the run began with exactly these settings."""
        return bool(self.settings == json.loads(json.dumps(settings)))

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.path / name} is not readable: {error}") from error

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file under a temporary name, then rename it, so that it is never half-written."""
        data = content.encode() if isinstance(content, str) else content
        self.path.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def write_results(
        self, page: str, content: Mapping[str, Any], *, name: str = "report", indent: int = 2
    ) -> None:
        """Write NAME.html, and last NAME.json, which marks the results as complete."""
        self.write(f"{name}.html", page)
        text = json.dumps(content, indent=indent, allow_nan=False)
        self.write(f"{name}.json", f"{text}\n")

    def save(self, name: str, arrays: WeightArrays, about: Mapping[str, Any]) -> None:
        """Write arrays to a safetensors file, with the facts `about` them as JSON metadata."""
        contiguous = {key: np.array(value, order="C") for key, value in arrays.items()}
        metadata = {"deepdefense": json.dumps(about)}
        self.write(name, _import_safetensors().save(contiguous, metadata=metadata))

    def load(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """Return the arrays and facts that `save` wrote to a file, or None if there is no file."""
        if not (self.path / name).exists():
            return None
        arrays = load_weights(self.path / name)
        import safetensors

        with safetensors.safe_open(self.path / name, framework="numpy") as file:
            metadata = file.metadata() or {}
        return arrays, json.loads(metadata["deepdefense"])

    def remove(self, name: str) -> None:
        """Delete a file of the folder, if it exists."""
        (self.path / name).unlink(missing_ok=True)


def name_new_folder(command: str, settings: Mapping[str, Any]) -> Path:
    """Return the path runs/DATA-NETWORK-TIME for `harden`, else runs/COMMAND-DATA-NETWORK-TIME."""
    names = [Path(str(settings["data"])).stem, str(settings["network"]).rpartition(":")[2]]
    prefix = [] if command == "harden" else [command]
    return Path("runs") / "-".join([*prefix, *names, f"{datetime.now():%Y%m%d-%H%M%S}"])


def find_latest(command: str, *, finished: bool) -> Path | None:
    """Return the folder of the newest run of a command in runs/, or None if there is none.

    Only finished runs are considered if `finished` is true, and only unfinished runs otherwise.
    """
    runs = [
        run
        for run in map(RunFolder, Path("runs").glob("*"))
        if run.is_begun and run.is_finished == finished and run.command == command
    ]
    paths = [run.path for run in runs]
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def find_unfinished(command: str) -> Path:
    """Return the folder of a command's newest unfinished run in runs/, or raise `InputError`."""
    if path := find_latest(command, finished=False):
        return path
    raise InputError(
        f"there is no unfinished run in runs/ of {command} to resume; name its folder with --out"
    )


def load_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a safetensors file by name; raise `InputError` if it is unreadable."""
    library = _import_safetensors()
    if not path.is_file():
        raise InputError(f"there is no file of weights {path}")
    try:
        return dict(library.load_file(path))
    except Exception as error:  # the public API of safetensors has no error class
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
