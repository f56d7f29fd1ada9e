"""The limits by which hardening rejects an epoch or ends training early."""

from __future__ import annotations

from dataclasses import dataclass

from deepdefense.seam.settings import (
    check_settings,
    document_settings,
    none_or,
    real_number,
    setting,
    whole_number,
)

__all__ = ["Guard"]


@document_settings
@dataclass(frozen=True)
class Guard:
    """The limits by which `harden` rejects an epoch or ends training early.

    If `max_accuracy_drop` or `patience` is given, a share of the training examples is set aside.
    The network is not trained on these examples, and its accuracy and mean rho_2 on them decide
    whether a limit is exceeded. rho_2 is the 2-norm of DeepFool's perturbation of an example,
    divided by the 2-norm of the example.
    """

    max_accuracy_drop: float | None = setting(
        None,
        "reject an epoch after which accuracy, as a fraction, is lower than before training by "
        "more than this, on training examples set aside; say 0.005",
        none_or(real_number(0, below=1)),
        unset="reject it only if accuracy has collapsed; in stages: one standard error, at "
        "most one point",
    )
    patience: int | None = setting(
        None,
        "end after this many epochs without a larger rho_2 on training examples set aside",
        none_or(whole_number(1)),
        unset="train for all epochs",
    )
    validation: float = setting(
        0.1,
        "share of the training examples to set aside, if max_accuracy_drop or patience is given",
        real_number(0, below=1),
        option=False,
    )
    retries: int = setting(
        3,
        "how often in a row a rejected epoch is tried again, each time at half the learning rate",
        whole_number(0),
        option=False,
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def share(self) -> float:
        """The share of the training examples to set aside.

        It is `validation` if `max_accuracy_drop` or `patience` is given, and 0 otherwise.
        """
        is_needed = self.max_accuracy_drop is not None or self.patience is not None
        return self.validation if is_needed else 0.0
