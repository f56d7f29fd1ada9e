"""Declare the settings of each command.

The command-line options, the defaults and the tables of docs/settings.md are made from these
declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from deepdefense.app.study.experiments import EXPERIMENTS
from deepdefense.app.study.methods import METHODS
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense.evaluation.plan import DEFAULT_PLAN
from deepdefense.seam.settings import (
    check_settings,
    none_or,
    setting,
    whole_number,
)
from deepdefense.seam.validation import check_choice, check_count
from deepdefense.training.guard import Guard
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS

__all__ = [
    "DATA_OPTIONS",
    "EVALUATE",
    "HARDEN",
    "REPRODUCE",
    "AttackOptions",
    "StudyOptions",
    "choose_fields",
]

SettingsT = TypeVar("SettingsT")

# The settings of `DataOptions` that say how to read the data. Runs of earlier versions lack them.
DATA_OPTIONS = ("label", "standardize", "resize")


@dataclass(frozen=True)
class DataOptions:
    """The data set, and the architecture of the network."""

    data: str = setting(
        "digits",
        "one of digits, mnist, cifar10; or a table, FILE.csv or FILE.parquet; or a folder of "
        "images, a parquet file of them, or FILE.npz with the arrays x_train, y_train, x_test and "
        "y_test, or x and y",
    )
    data_dir: Path | None = setting(
        None, "folder with a copy of mnist or cifar10", unset="download from the Hugging Face hub"
    )
    label: str | None = setting(
        None,
        "column of a table that holds the labels",
        unset="the column label, class, target or y",
    )
    standardize: bool = setting(
        False,
        "subtract the mean of each feature and divide by its standard deviation, both of the "
        "training set; for features of unlike scale",
    )
    resize: str | None = setting(
        None,
        "size of images in pixels, N or HEIGHTxWIDTH, to which all are resized",
        unset="all must have one size",
    )
    network: str = setting("mlp", f"one of {', '.join(NETWORKS)}; or package.module:factory")


@dataclass(frozen=True)
class WeightsOption:
    """The weights of the network to harden."""

    weights: Path | None = setting(
        None, "FILE.safetensors of a trained network", unset="train one first"
    )


@dataclass(frozen=True)
class EvaluatedWeights:
    """The weights of the network to evaluate, and of the undefended network to compare it with."""

    weights: Path | None = setting(
        None, "FILE.safetensors of the network", unset="the factory's own"
    )
    reference: Path | None = setting(
        None, "FILE.safetensors of the undefended network, to compare with", unset="no comparison"
    )


@dataclass(frozen=True)
class FrameworkOptions:
    """The framework, and the device on which it computes."""

    backend: str | None = setting(
        None, "one of torch, jax, tensorflow", unset="the first of them that is installed"
    )
    device: str | None = setting(
        None,
        "where to compute, in the framework's own name: cuda or cuda:1 in PyTorch, gpu in the "
        "others",
        unset="PyTorch takes the CPU, the others a GPU if they see one",
    )


@dataclass(frozen=True)
class PixelRangeOption:
    """Whether the perturbed images that the penalty computes stay within the range of pixels."""

    bounded: bool = setting(
        False,
        "with fast: measure the distance to the decision boundary among images within the range of "
        "pixels; works better with 3 steps",
    )


@dataclass(frozen=True)
class AttackOptions:
    """Which attacks an evaluation runs, on which examples, and with which limits."""

    preset: Literal["quick", "standard", "thorough"] = setting(
        DEFAULT_PLAN.preset,  # type: ignore[arg-type]  # `DEFAULT_PLAN` types it as str
        "which attacks, and with how many steps",
    )
    examples: int = setting(1000, "number of held-out examples, drawn by the seed", whole_number(1))
    p: float = setting(DEFAULT_PLAN.p, "norm of the attacker, 2 or inf")
    eps: list[float] | None = setting(
        None,
        "perturbation sizes at which to report accuracy under attack, in units of the network's "
        "input: for images, pixels of 0..255",
        unset="the median distance",
    )
    bounds: Literal["pixels", "none"] = setting(
        "pixels", "keep perturbed images within 0..255 (pixels), or not (none)"
    )
    batch_size: int = setting(DEFAULT_PLAN.batch_size, "number of examples attacked at a time")
    seed: int = setting(
        DEFAULT_PLAN.seed, "seed of everything random: the examples drawn, and the attacks"
    )

    def __post_init__(self) -> None:
        check_settings(self)


def _check_names(name: str, values: Any, choices: Collection[str]) -> Any:
    if not values:
        raise InputError(f"{name} must name one of {', '.join(choices)}, got none")
    for value in values:
        check_choice(name.removesuffix("s"), value, tuple(choices))
    return values


def _check_seeds(name: str, values: Any) -> Any:
    if not values or len(set(values)) < len(values):
        raise InputError(f"{name} must be different whole numbers, got {list(values)}")
    for value in values:
        check_count("seed", value, least=0)
    return values


@dataclass(frozen=True)
class StudyOptions:
    """Which networks the study trains, by which methods, and on how many examples."""

    subjects: tuple[str, ...] = setting(
        ("mnist-mlp", "mnist-lenet"),
        f"one or more of {', '.join(EXPERIMENTS)}",
        lambda name, values: _check_names(name, values, EXPERIMENTS),
    )
    methods: tuple[str, ...] = setting(
        tuple(METHODS),
        f"one or more of {', '.join(METHODS)}",
        lambda name, values: _check_names(name, values, METHODS),
    )
    seeds: tuple[int, ...] = setting((0,), "seeds to repeat everything with", _check_seeds)
    data_dir: Path | None = setting(
        None,
        "folder with copies of mnist and cifar10; a file NETWORK_reference.safetensors beside the "
        "data is the reference network",
        unset="download from the Hugging Face hub",
    )
    epochs: int | None = setting(
        None,
        "epochs of every method",
        none_or(whole_number(1)),
        unset="what fits each subject",
    )
    train_examples: int | None = setting(
        None,
        "use only this many training examples, from the first on, for a shorter run",
        none_or(whole_number(1)),
        unset="all",
    )
    test_examples: int | None = setting(
        None,
        "use only this many held-out examples, from the first on, for a large network",
        none_or(whole_number(1)),
        unset="all",
    )
    examples: int = setting(500, "number of held-out examples that are attacked", whole_number(1))

    def __post_init__(self) -> None:
        check_settings(self)


# For each panel of a command's help: its title, and the settings classes whose options it shows.
Panels = Mapping[str, tuple[type, ...]]
HARDEN: Panels = {
    "Data and network": (DataOptions, WeightsOption),
    "Framework": (FrameworkOptions,),
    "Training": (Recipe,),
    "Penalty": (DeepDefense, PixelRangeOption),
    "Limits": (Guard,),
}
EVALUATE: Panels = {
    "Data and network": (DataOptions, EvaluatedWeights),
    "Framework": (FrameworkOptions,),
    "Attacks": (AttackOptions,),
}
REPRODUCE: Panels = {"Study": (StudyOptions,), "Framework": (FrameworkOptions,)}


def choose_fields(kind: type[SettingsT], settings: Mapping[str, Any]) -> SettingsT:
    """Return an instance of the settings class `kind`, with values from `settings`.

    Entries of `settings` that are not fields of `kind` are ignored.
    """
    names = [declared.name for declared in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: settings[name] for name in names if name in settings})
