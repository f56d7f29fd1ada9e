"""Run the public conformance kit on every backend, eager and compiled."""

from __future__ import annotations

from typing import Any

import pytest

from deepdefense.testing import (
    BackendTests,
    CompiledTests,
    DifferenceTests,
    EagerTests,
    ImplicitLaws,
    LawTests,
)
from deepdefense.testing.penalty_gradients import ImplicitTests
from deepdefense.testing.primitives import PrimitiveTests


@pytest.mark.only("numpy")
class TestNumpy(DifferenceTests):
    backend = "numpy"


@pytest.mark.only("torch")
class TestTorch(BackendTests):
    backend = "torch"


# `LawTests` test the algorithms, whose code is the same for every backend. For slow frameworks they
# run only with --thorough.
@pytest.mark.only("jax")
class TestJax(EagerTests):
    backend = "jax"


@pytest.mark.thorough
@pytest.mark.only("jax")
class TestJaxLaws(LawTests, ImplicitLaws):
    backend = "jax"


@pytest.mark.only("jax")
class TestJaxJit(CompiledTests):
    backend = "jax"

    @staticmethod
    def compile(function: Any) -> Any:
        import jax

        return jax.jit(function)


@pytest.mark.only("tensorflow")
class TestTensorFlow(EagerTests):
    backend = "tensorflow"


@pytest.mark.thorough
@pytest.mark.only("tensorflow")
class TestTensorFlowLaws(LawTests, ImplicitLaws):
    backend = "tensorflow"


@pytest.mark.only("tensorflow")
class TestTensorFlowGraph(CompiledTests):
    """Tests in a `tf.function` that accepts batches of any size."""

    backend = "tensorflow"

    @staticmethod
    def compile(function: Any) -> Any:
        import tensorflow as tf

        def call(*arrays: Any) -> Any:
            signature = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays]
            return tf.function(function, input_signature=signature, autograph=False)(*arrays)

        return call


@pytest.mark.only("tensorflow")
class TestTensorFlowXla(PrimitiveTests, ImplicitTests):
    """Tests under XLA, which compiles slowly: only the operations and the implicit gradients."""

    backend = "tensorflow"

    @staticmethod
    def compile(function: Any) -> Any:
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
