"""The default of each option of the commands, which may depend on the other options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepdefense.app.jobs.settings import HARDEN, Panels, PixelRangeOption
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.seam.settings import Setting, list_settings
from deepdefense.training.recipe import Recipe
from deepdefense.training.staged_fit import STAGED_PENALTY

__all__ = [
    "CALIBRATED_SETTINGS",
    "DATA_DEFAULTS",
    "describe_default",
    "find_defaults",
    "format_default",
    "format_value",
]

# Defaults of `harden` that apply to one data set only. The digits have fewer examples than MNIST,
# for which the paper chose its settings, so they need other values. These were chosen on other
# splits into training and test examples than that of the default seed 0.
DATA_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "digits": {"epochs": 90, "lr": 1e-3, "c": 2.5, "d": 5.0},
}

# The defaults of `harden` with `stages`, which is on unless one of `SINGLE_RUN_SETTINGS` is given.
# The number of steps of a stage depends on the number of training examples.
STAGED_DEFAULTS: Mapping[str, Any] = {
    **{
        declared.name: getattr(Recipe.staged(1), declared.name)
        for declared in list_settings(Recipe)
        if declared.option
        and getattr(Recipe.staged(1), declared.name) != declared.default
        and declared.name != "optimizer_steps"
    },
    **{name: getattr(STAGED_PENALTY, name) for name in ("gradient", "candidates", "steps", "lam")},
}

# The options of the training and the penalty that stages share with a single run.
SHARED_SETTINGS = {
    "stages",
    "optimizer_steps",
    "batch_size",
    "flip",
    "shift",
    "channels_last",
    "seed",
    "p",
}
# The options that only a single run has.
SINGLE_RUN_SETTINGS = {
    declared.name
    for kind in (Recipe, DeepDefense, PixelRangeOption)
    for declared in list_settings(kind)
    if declared.name not in SHARED_SETTINGS
} | {"patience"}

# For each setting that `harden` fits to the network by default, the text that the help shows.
CALIBRATED_SETTINGS = {"c": "fitted to the network's own rho", "d": "c / 5 as fitted"}


def find_defaults(panels: Panels, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of every option of a command, by name.

    Some defaults of `harden` depend on the options that are given. Without options of the training
    or the penalty, `harden` trains in stages (`STAGED_DEFAULTS`). Otherwise, some defaults depend
    on the data set (`DATA_DEFAULTS`).
    """
    defaults = {
        declared.name: declared.default
        for kinds in panels.values()
        for kind in kinds
        for declared in list_settings(kind)
        if declared.option
    }
    if panels is HARDEN:
        defaults |= dict.fromkeys(CALIBRATED_SETTINGS)
        if options.get("stages", not SINGLE_RUN_SETTINGS & set(options)):
            defaults |= STAGED_DEFAULTS
        else:
            defaults |= DATA_DEFAULTS.get(options.get("data") or defaults["data"], {})
    return defaults


def describe_default(panels: Panels, declared: Setting) -> str:
    """Return the help text for an option's default, also for data sets with another default."""
    texts = [format_default(declared)]
    if panels is HARDEN:
        if declared.name == "stages":
            return "on, unless another option of training or of the penalty is given"
        texts = [CALIBRATED_SETTINGS.get(declared.name, texts[0])]
        if declared.name in STAGED_DEFAULTS:
            staged = format_value(STAGED_DEFAULTS[declared.name])
            texts += [f"in stages: {staged}"] if staged != texts[0] else []
        texts += [
            f"{data}: {defaults[declared.name]:g}"
            for data, defaults in DATA_DEFAULTS.items()
            if declared.name in defaults
        ]
    return "; ".join(texts)


def format_default(declared: Setting) -> str:
    """Return the help text for the default with which a setting is declared."""
    if declared.default is None:
        return declared.unset or "none"
    return format_value(declared.default)


def format_value(value: Any) -> str:
    """Return the value of a setting as text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
