"""What `deepdefense reproduce` does: from settings to trained cells, tables and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepdefense.app.data import load
from deepdefense.app.networks import first_installed
from deepdefense.app.runs import RunFolder
from deepdefense.app.study.cells import Bench, StudyPlan
from deepdefense.app.study.experiments import EXPERIMENTS
from deepdefense.app.study.methods import METHODS
from deepdefense.app.study.tables import TABLES, VARIATIONS
from deepdefense.app.study.views import STUDY_SCHEMA, write_study
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import describe_data, describe_environment, to_json
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import training_backend
from deepdefense.seam.validation import check_choice, check_count

__all__ = ["DEFAULTS", "QUICK", "STUDIES", "run_study"]

STUDIES = tuple(TABLES)


DEFAULTS: Mapping[str, Any] = {
    "subjects": ["mnist-mlp", "mnist-lenet"],
    "methods": list(METHODS),
    "seeds": [0],
    "data_dir": None,
    "backend": None,
    "device": None,
    "epochs": None,
    "train_examples": None,
    "test_examples": None,
    "examples": 500,
}


# A smoke run of minutes: data that come with scikit-learn, few epochs and examples.
QUICK: Mapping[str, Any] = {"subjects": ["digits-mlp"], "epochs": 3, "examples": 50}


def run_study(
    table: str,
    given: Mapping[str, Any],
    *,
    quick: bool,
    out: Path,
    command: str,
    watcher: Watcher,
) -> Path:
    """Train and measure what is not in `out` yet, and write the table; its page's path."""
    settings = {**DEFAULTS, **(QUICK if quick else {}), **given}
    check_choice("table", table, STUDIES)
    _check(settings)
    backend = training_backend(settings["backend"] or first_installed())
    rows: list[dict[str, Any]] = []
    curves, described = {}, {}
    plan = StudyPlan(settings["methods"], settings["seeds"], settings["examples"], None)
    for name in settings["subjects"]:
        experiment = EXPERIMENTS[name]
        data, beside = _data(experiment.data, settings["data_dir"])
        data = data.shorten(settings["train_examples"], settings["test_examples"])
        bench = Bench(experiment, backend, data, out / name, watcher, settings["epochs"])
        runs = "variations" if table in VARIATIONS else _count(len(plan.methods), "method")
        own = max(experiment.hardening(method).recipe.epochs for method in plan.methods)
        epochs = settings["epochs"] or own
        watcher.say(
            f"{name}: {runs}, {_count(len(plan.seeds), 'seed')}, "
            f"at most {_count(epochs, 'epoch')} each; what is in {out} already is not done again"
        )
        with backend.on_device(settings["device"]):
            reference = _published(beside, experiment.network)
            found = TABLES[table](bench, plan._replace(weights=reference))
        rows += found.rows
        curves[name] = found.curves
        described[name] = describe_data(data)
    content = {
        "schema": STUDY_SCHEMA,
        "table": table,
        "command": command,
        "environment": describe_environment(backend.name),
        "settings": {
            key: value for key, value in settings.items() if value is not None and key != "data_dir"
        },
        "data": described,
        "rows": rows,
        "curves": curves,
    }
    write_study(RunFolder(out), to_json(content))
    return out / f"{table}.html"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check(settings: Mapping[str, Any]) -> None:
    for key, known in (("subjects", EXPERIMENTS), ("methods", METHODS)):
        if not settings[key]:
            raise InputError(f"{key} must name one of {', '.join(known)}, got none")
        for name in settings[key]:
            check_choice(key.removesuffix("s"), name, tuple(known))
    seeds: Sequence[int] = settings["seeds"]
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must be different whole numbers, got {list(seeds)}")
    for seed in seeds:
        check_count("seed", seed, least=0)
    check_count("examples", settings["examples"], least=1)
    for name in ("epochs", "train_examples", "test_examples"):
        if settings[name] is not None:
            check_count(name, settings[name], least=1)


def _data(name: str, folder: str | None) -> tuple[Dataset, Path | None]:
    """The data set, and the folder that it lies in, if it is in one."""
    if folder is None:
        return load(name), None
    path = Path(folder)
    beside = path / name if (path / name).is_dir() else path
    data = load(name, data_dir=beside)
    return data, beside


def _published(folder: Path | None, network: str) -> Path | None:
    """A reference network that lies beside its data, as NETWORK_reference.safetensors."""
    path = None if folder is None else folder / f"{network}_reference.safetensors"
    return path if path is not None and path.is_file() else None
