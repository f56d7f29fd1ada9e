"""The limits that reject an epoch of hardening."""

from __future__ import annotations

from dataclasses import dataclass

from deepdefense.seam.validation import check_count, check_number, to_python_numbers

__all__ = ["Guard"]


@dataclass(frozen=True)
class Guard:
    """What an epoch of hardening must keep to, or it is taken back.

    Args:
        max_accuracy_drop: how far accuracy may fall below where it began, as a fraction, on
            training examples that are set aside for it; None: until it has collapsed (see
            `COLLAPSE_DROP` in training/loop.py), on some of those trained on.
        patience: end the stage once so many epochs have brought no larger rho_2 on the examples
            set aside; None: train for all epochs.
        validation: the share of the training examples that is set aside, if either is given.
        retries: how often in a row an epoch is tried again, each time at half the learning rate.

    Held-out test data decide nothing.
    """

    max_accuracy_drop: float | None = None
    patience: int | None = None
    validation: float = 0.1
    retries: int = 3

    def __post_init__(self) -> None:
        to_python_numbers(self)
        if self.max_accuracy_drop is not None:
            check_number("max_accuracy_drop", self.max_accuracy_drop, least=0, below=1)
        if self.patience is not None:
            check_count("patience", self.patience, least=1)
        check_number("validation", self.validation, least=0, below=1)
        check_count("retries", self.retries, least=0)

    @property
    def share(self) -> float:
        """The share of the training examples that is set aside."""
        used = self.max_accuracy_drop is not None or self.patience is not None
        return self.validation if used else 0.0
