"""Run `deepdefense reproduce`: train and attack the networks of the study, and write a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepdefense.app.data import load_data
from deepdefense.app.jobs.defaults import find_defaults
from deepdefense.app.jobs.job import open_backend, to_plain_options
from deepdefense.app.jobs.settings import REPRODUCE, StudyOptions, choose_fields
from deepdefense.app.run_folder import RunFolder
from deepdefense.app.study.experiment_runner import ExperimentRunner, StudyPlan
from deepdefense.app.study.experiments import EXPERIMENTS
from deepdefense.app.study.study_report import StudyReport, write_study
from deepdefense.app.study.tables import TABLES, VARIATIONS
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import describe_data, describe_environment
from deepdefense.seam.progress import Watcher
from deepdefense.seam.validation import check_choice

__all__ = ["QUICK", "run_study"]

# The settings that --quick changes.
QUICK: Mapping[str, Any] = {"subjects": ("digits-mlp",), "epochs": 3, "examples": 50}


def run_study(
    table: str,
    options: Mapping[str, Any],
    *,
    quick: bool,
    out: Path,
    command: str,
    watcher: Watcher,
) -> Path:
    """Train and attack the networks that a table compares; return the path of the table's page.

    Networks and measurements that the folder `out` already holds are not computed again.
    """
    settings = {
        **find_defaults(REPRODUCE, options),
        **(QUICK if quick else {}),
        **to_plain_options(options),
    }
    check_choice("table", table, tuple(TABLES))
    study = choose_fields(StudyOptions, settings)
    rows: list[dict[str, Any]] = []
    curves, descriptions = {}, {}
    with open_backend(settings) as backend:
        for name in study.subjects:
            experiment = EXPERIMENTS[name]
            data, folder = _load_data(experiment.data, study.data_dir)
            data = data.shorten(study.train_examples, study.test_examples)
            runner = ExperimentRunner(experiment, backend, data, out / name, watcher, study.epochs)
            longest = max(
                experiment.get_hardening(method).recipe.epochs for method in study.methods
            )
            networks = _count(len(study.methods), "method")
            watcher.say(
                f"{name}: {'variations' if table in VARIATIONS else networks}, "
                f"{_count(len(study.seeds), 'seed')}, "
                f"at most {_count(study.epochs or longest, 'epoch')} each; "
                f"what is in {out} already is not done again"
            )
            weights = _find_published(folder, experiment.network)
            plan = StudyPlan(study.methods, study.seeds, study.examples, weights)
            content = TABLES[table](runner, plan)
            rows += content.rows
            curves[name] = content.curves
            descriptions[name] = describe_data(data)
    report = StudyReport(
        table=table,
        command=command,
        environment=describe_environment(backend.name),
        settings={
            key: value for key, value in settings.items() if value is not None and key != "data_dir"
        },
        data=descriptions,
        rows=rows,
        curves=curves,
    )
    write_study(RunFolder(out), report)
    return out / f"{table}.html"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _load_data(name: str, data_dir: Path | str | None) -> tuple[Dataset, Path | None]:
    """Return a data set, and the folder of its local copy (None if `data_dir` is None)."""
    if data_dir is None:
        return load_data(name), None
    path = Path(data_dir)
    folder = path / name if (path / name).is_dir() else path
    return load_data(name, data_dir=folder), folder


def _find_published(folder: Path | None, network: str) -> Path | None:
    """Return the path of NETWORK_reference.safetensors in `folder`, or None if it is missing."""
    path = None if folder is None else folder / f"{network}_reference.safetensors"
    return path if path is not None and path.is_file() else None
