"""Checks that look for signs that the robustness figures of an evaluation are wrong.

Each module holds one kind of check:

- `logits_and_inputs`: are the outputs logits, and are the inputs in the expected range?
- `determinism`: does the output of an example depend on chance or on the batch?
- `gradients`: do the input gradients exist, and are they correct?
- `attack_comparison`: does a weak attack fool the network where a stronger attack fails?

To add a check, write a function that returns `make_check(...)`, and call it in `run_network_checks`
or `run_attack_checks`.
"""

from deepdefense.evaluation.checks.check import Check, Status, find_severe_failure

__all__ = ["Check", "Status", "find_severe_failure"]
