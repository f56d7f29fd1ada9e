"""The conformance kit: the tests that every backend must pass, for authors of backends.

For a backend registered under the entry-point group ``deepdefense.backends``, write a test file::

    from deepdefense.testing import BackendTests, CompiledTests

    class TestMine(BackendTests):
        backend = "mine"

and, if the framework compiles functions of arrays, test them compiled as well::

    class TestMineCompiled(CompiledTests):
        backend, compile = "mine", staticmethod(mine.jit)

From a backend, the tests need only the operations of `deepdefense.Backend`, ``xp.tanh``,
``xp.logaddexp`` and float64. They also need pytest and hypothesis
(``pip install "deepdefense[testing]"``). The tests compare each algorithm with an oracle, a
separate implementation in NumPy that handles one example at a time.
"""

from deepdefense.testing.attacks import AttackLaws, AttackTests
from deepdefense.testing.calls import CallTests
from deepdefense.testing.deepfool import DeepFoolLaws, DeepFoolTests, SinglePrecisionTests
from deepdefense.testing.evaluation import EvaluationLaws, EvaluationTests, GradientFaultTests
from deepdefense.testing.harness import AUTODIFF, DIFFERENCE, NESTED, SINGLE, Harness
from deepdefense.testing.norms import NormGradientTests, NormTests
from deepdefense.testing.penalty import PenaltyLaws, PenaltyTests
from deepdefense.testing.penalty_gradients import EdgeTests, ImplicitLaws, ImplicitTests
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
    """Tests of invariances that the algorithms have by construction, whatever the backend."""


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
    """All tests that apply to a backend whose gradients are finite differences."""

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
    """All tests that also work if the framework compiles the tested functions.

    A subclass sets `backend`, and `compile`, the framework's compiler.
    """


class EagerTests(CompiledTests, AttackTests, EvaluationTests, GradientFaultTests, CallTests):
    """All tests of a backend except the tests of the algorithms, `LawTests` and `ImplicitLaws`."""


class BackendTests(EagerTests, LawTests, ImplicitLaws):
    """All tests of a backend. A subclass sets `backend` to the name of its entry point."""
