"""Add the Deep Defense penalty to Keras's own `fit`, on three Gaussian blobs in 50 dimensions.

The example runs on any backend of Keras: KERAS_BACKEND=jax python docs/examples/keras_fit.py
"""

import keras
import numpy as np

import deepdefense as dd
import deepdefense_keras


def draw_blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n points of three classes, around the corners of a triangle, and their labels."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((3, 50))
    centres[:, :2] = [[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]]
    labels = rng.integers(0, 3, n)
    return (centres[labels] + 0.5 * rng.normal(size=(n, 50))).astype("float32"), labels


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = draw_blobs(300, seed=0), draw_blobs(200, seed=1)
    model = keras.Sequential(
        [keras.Input((50,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(3)]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=5, verbose=0)
    reports = []
    with dd.use_backend(keras.backend.backend()):
        reports.append(dd.evaluate(model, x_test, y_test))
        with deepdefense_keras.defended(model, dd.DeepDefense(lam=5.0, c=5.0, d=1.0)):
            model.fit(x, y, epochs=8, verbose=0)
        reports.append(dd.evaluate(model, x_test, y_test))
    for name, report in zip(("before", "after"), reports, strict=True):
        print(f"{name:6}  accuracy {report.accuracy:.3f}  rho_2 {report.rho_2:.3f}")
    return reports[0], reports[1]


if __name__ == "__main__":
    main()
