"""Add the Deep Defense penalty to a TensorFlow training loop with `GradientTape`."""

from __future__ import annotations

import keras
import tensorflow as tf

import deepdefense as dd


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    keras.utils.set_random_seed(0)
    # The data are forty Gaussian blobs, ten for each of the four classes.
    centres = tf.random.normal((40, 10))
    blob = tf.random.uniform((768,), 0, 40, tf.int32)
    examples = tf.gather(centres, blob) + 0.15 * tf.random.normal((768, 10))
    labels = blob % 4
    x, y = examples[:512], labels[:512]

    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(4),
        ]
    )
    defense = dd.DeepDefense(c=5.0, steps=3)  # c * rho_2 should be about 1 to 6
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor, hardening: bool) -> None:
        with tf.GradientTape() as tape:
            loss = cross_entropy(y, model(x, training=True))
            if hardening:  # the penalty runs the model in inference mode, without dropout
                loss += tf.reduce_mean(defense(model, x, y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    reports = []
    for hardening in (False, True):
        for _ in range(100):
            step(x, y, hardening)
        reports.append(dd.evaluate(model, examples[512:], labels[512:]))

    for name, report in zip(("before", "after"), reports, strict=True):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return reports[0], reports[1]


if __name__ == "__main__":
    main()
