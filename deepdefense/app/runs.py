"""A run's folder on disk: nothing in it is ever half-written, and nothing else is overwritten."""

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
    "CHECKPOINT",
    "HARDENED",
    "REFERENCE",
    "REPORT",
    "SETTINGS",
    "RunFolder",
    "latest",
    "load_weights",
    "new_path",
    "unfinished",
]

SETTINGS, CHECKPOINT, REPORT = "settings.json", "checkpoint.safetensors", "report.json"


PART = ".part.safetensors"
REFERENCE, HARDENED = "reference.safetensors", "hardened.safetensors"


Arrays = Mapping[str, npt.NDArray[Any]]


def _safetensors() -> Any:
    try:
        import safetensors.numpy as library
    except ModuleNotFoundError as error:
        raise ImportError('weights on disk need: pip install "deepdefense[cli]"') from error
    return library


@dataclass(frozen=True)
class _Checkpoint:
    """A run's checkpoint, as `deepdefense.training.loop.Checkpoint` describes it."""

    run: RunFolder

    def load(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """What was saved last, or None."""
        return self.run.load(CHECKPOINT)

    def save(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Replace what was saved."""
        self.run.save(CHECKPOINT, arrays, about)


@dataclass(frozen=True)
class _AttackStorage:
    """One file for each attack on each batch: `deepdefense.evaluation.cache.Storage` on disk."""

    run: RunFolder

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays saved under that name, or None."""
        saved = self.run.load(f"{name}{PART}")
        return None if saved is None else saved[0]

    def save(self, name: str, arrays: Arrays, attack: str) -> None:
        """Save arrays under that name, with the attack that they are of."""
        self.run.save(f"{name}{PART}", arrays, {"attack": attack})

    def clear(self) -> None:
        """Remove every part: the results are written."""
        for part in self.run.path.glob(f"*{PART}"):
            self.run.remove(part.name)


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run: its settings, its last complete epoch, its results."""

    path: Path

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """A new folder, or an empty one; raises `InputError` if it holds anything already."""
        _safetensors()
        if path.is_dir() and any(path.iterdir()):
            doing = "go on with resume, or " if (path / SETTINGS).exists() else ""
            raise InputError(f"{path} is not empty: {doing}choose another folder")
        run = cls(path)
        run.write(SETTINGS, json.dumps(settings, indent=2))
        return run

    @classmethod
    def reopen(
        cls, path: Path, settings: Mapping[str, Any] | None = None, command: str = "harden"
    ) -> RunFolder:
        """The folder of an unfinished run; `settings`, if given, must be those it began with."""
        run = cls(path)
        if not (path / SETTINGS).is_file():
            raise InputError(f"there is no run to resume in {path}")
        if run.command != command:
            raise InputError(f"the run in {path} is of {run.command}, not of {command}")
        if (path / REPORT).exists():
            raise InputError(f"the run in {path} is complete: there is nothing to resume")
        for name, value in (settings or {}).items():
            began = run.settings.get(name)
            if began != json.loads(json.dumps(value)):
                raise InputError(
                    f"the run in {path} began with {name} = {began}, not {value}: "
                    "resume it as it began, or start another"
                )
        return run

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was started with."""
        return dict(self._read_json(SETTINGS))

    @property
    def command(self) -> str:
        """Which command's run it is."""
        return str(self.settings.get("command", "harden"))

    @property
    def checkpoint(self) -> _Checkpoint:
        """Where training keeps its last complete epoch."""
        return _Checkpoint(self)

    @property
    def attack_storage(self) -> _AttackStorage:
        """Where an evaluation keeps the results of attacks until it is complete."""
        return _AttackStorage(self)

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.path / name} is not readable: {error}") from error

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file whole: under another name first, then moved to its place."""
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

    def save(self, name: str, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Write arrays, and what there is to say of them, as one safetensors file."""
        contiguous = {key: np.array(value, order="C") for key, value in arrays.items()}
        metadata = {"deepdefense": json.dumps(about)}
        self.write(name, _safetensors().save(contiguous, metadata=metadata))

    def load(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """What `save` wrote under that name, or None if there is no such file."""
        if not (self.path / name).exists():
            return None
        arrays = load_weights(self.path / name)
        import safetensors

        with safetensors.safe_open(self.path / name, framework="numpy") as file:
            metadata = file.metadata() or {}
        return arrays, json.loads(metadata["deepdefense"])

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        (self.path / name).unlink(missing_ok=True)


def new_path(command: str, settings: Mapping[str, Any]) -> Path:
    """runs/DATA-NETWORK-TIME, in the working directory; but for hardening after its command."""
    names = [Path(str(settings["data"])).stem, str(settings["network"]).rpartition(":")[2]]
    prefix = [] if command == "harden" else [command]
    return Path("runs") / "-".join([*prefix, *names, f"{datetime.now():%Y%m%d-%H%M%S}"])


def latest(command: str, *, finished: bool = False) -> Path | None:
    """The newest run of a command in runs/ that is finished, or is not; if there is one."""
    found = [
        folder
        for folder in Path("runs").glob("*")
        if (folder / SETTINGS).exists()
        and (folder / REPORT).exists() == finished
        and RunFolder(folder).command == command
    ]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def unfinished(command: str) -> Path:
    """The newest run of a command in runs/ to go on with; raises `InputError` if there is none."""
    if found := latest(command):
        return found
    raise InputError(
        f"there is no unfinished run in runs/ of {command} to resume; name its folder with --out"
    )


def load_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name from a safetensors file; raises `InputError` if it is not one."""
    library = _safetensors()
    if not path.is_file():
        raise InputError(f"there is no file of weights {path}")
    try:
        return dict(library.load_file(path))
    except Exception as error:  # the library's own error class is no part of its public interface
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
