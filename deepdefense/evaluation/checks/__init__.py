"""The checks of an evaluation: signs that its figures would be wrong.

One file for each kind of check:

- `logits_and_inputs`: what the model returns, and what it is given.
- `determinism`: whether outputs depend on chance or on the batch.
- `gradients`: whether the input gradients are there, and are the model's.
- `attack_comparison`: whether some attacks find what others miss.

A check is a function that returns a `Check`, made by `make_check`. To add one, write it in the file
of its kind and list it in `run_network_checks` or `run_attack_checks` in `run`.
"""

from deepdefense.evaluation.checks.check import Check, Status, find_severe_failure

__all__ = ["Check", "Status", "find_severe_failure"]
