"""The tests that every backend must pass, for those who write one.

In a test file, for a backend registered under the entry-point group ``deepdefense.backends``::

    from deepdefense.testing import BackendTests, CompiledTests

    class TestMine(BackendTests):
        backend = "mine"

and, where the framework compiles functions of arrays, the same once more::

    class TestMineCompiled(CompiledTests):
        backend, compile = "mine", staticmethod(mine.jit)

The tests are written in the seam's own operations (and ``xp.tanh``, ``xp.logaddexp``), so that they
need nothing else of the framework. Each primitive is held against gradients written out by hand,
each algorithm against a per-example oracle that shares no code with it; Hypothesis draws the
networks, inputs and settings. They need float64, pytest and hypothesis
(``pip install "deepdefense[testing]"``).
"""

from deepdefense.testing.attacks import AttackLaws, AttackTests
from deepdefense.testing.calls import CallTests
from deepdefense.testing.deepfool import DeepFoolLaws, DeepFoolTests, SinglePrecisionTests
from deepdefense.testing.evaluation import EvaluationLaws, EvaluationTests, GradientFaultTests
from deepdefense.testing.harness import AUTODIFF, DIFFERENCE, NESTED, SINGLE, Harness
from deepdefense.testing.norms import NormGradientTests, NormTests
from deepdefense.testing.penalty import (
    EdgeTests,
    ImplicitLaws,
    ImplicitTests,
    PenaltyLaws,
    PenaltyTests,
)
from deepdefense.testing.primitives import ConstantTests, PrimitiveTests
from deepdefense.testing.strategies import Case, cases, given

__all__ = [
    "AUTODIFF",
    "DIFFERENCE",
    "NESTED",
    "SINGLE",
    "BackendTests",
    "Case",
    "CompiledTests",
    "DifferenceTests",
    "EagerTests",
    "Harness",
    "ImplicitLaws",
    "LawTests",
    "PrimitiveTests",
    "cases",
    "given",
]


class LawTests(DeepFoolLaws, PenaltyLaws, AttackLaws, EvaluationLaws):
    """What follows from an algorithm, whatever the backend."""


class DifferenceTests(
    PrimitiveTests,
    NormTests,
    DeepFoolTests,
    PenaltyTests,
    AttackTests,
    EvaluationTests,
    CallTests,
    LawTests,
):
    """All that can be asked of a backend whose gradients are finite differences."""

    exactness = DIFFERENCE
    activations = ("tanh", "softplus", "identity")


class CompiledTests(
    PrimitiveTests,
    ConstantTests,
    NormTests,
    NormGradientTests,
    DeepFoolTests,
    SinglePrecisionTests,
    PenaltyTests,
    ImplicitTests,
    EdgeTests,
):
    """All that a compiler could get wrong in a function; name the backend, and `compile`."""


class EagerTests(CompiledTests, AttackTests, EvaluationTests, GradientFaultTests, CallTests):
    """All that a backend could get wrong."""


class BackendTests(EagerTests, LawTests, ImplicitLaws):
    """All that holds of a backend; name it."""
