"""Draw the picture of README.md from a hardening run on images.

Usage: `python docs/picture.py RUN_FOLDER`. Each of the three rows shows an image, then the smallest
perturbation that DeepFool finds and the perturbed image, first for the network before hardening,
then for the hardened network. All perturbations have the same colour scale.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import deepdefense as dd
from deepdefense.app.data import load_data
from deepdefense.app.run_folder import RunFolder, load_weights
from deepdefense.seam.training_contract import training_backend
from deepdefense.zoo import NETWORKS

CLASSES = (3, 7, 4)  # the labels of the three images


def draw(folder: Path) -> Figure:
    """Draw the picture from a run folder of `deepdefense harden`, with a network of the zoo."""
    settings = RunFolder(folder).settings
    data_dir = settings["data_dir"] and Path(settings["data_dir"])
    data = load_data(settings["data"], data_dir=data_dir, seed=settings["seed"])
    backend = training_backend(settings["backend"])
    reference = settings["weights"] or folder / "reference.safetensors"
    rows = [int(np.flatnonzero(data.y_test == label)[1]) for label in CLASSES]
    images = data.to_pictures(data.x_test[rows])
    assert images is not None, f"{settings['data']} are no images"

    figure = Figure(figsize=(7.6, 4.9), layout="constrained")
    axes = figure.subplots(len(rows), 5)
    for column, weights in ((1, reference), (3, folder / "hardened.safetensors")):
        network = NETWORKS[settings["network"]](data.x_test.shape[1:], data.classes)
        model = backend.build(network, load_weights(Path(weights)))
        x = backend.asarray(data.x_test[rows], model)
        result = dd.deepfool(model, x)
        with backend.inference(model) as f:
            predicted = backend.to_numpy(backend.forward(f, result.x)).argmax(1)
        ratios = backend.to_numpy(dd.rho(result.delta, x))
        perturbed = data.to_pictures(backend.to_numpy(result.x))
        assert perturbed is not None
        for row, image in enumerate(images):
            delta = perturbed[row] - image
            axes[row, column].imshow(delta, cmap="RdBu_r", vmin=-0.8, vmax=0.8)
            axes[row, column].set_xlabel(rf"$\rho$ = {ratios[row]:.2f}", fontsize=10)
            axes[row, column + 1].imshow(perturbed[row].clip(0, 1), cmap="gray", vmin=0, vmax=1)
            axes[row, column + 1].set_xlabel(f"taken for a {predicted[row]}", fontsize=10)
            axes[row, 0].imshow(image, cmap="gray", vmin=0, vmax=1)
            axes[row, 0].set_xlabel(f"a {CLASSES[row]}", fontsize=10)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes[0, 0].set_title("image", fontsize=11)
    axes[0, 1].set_title("what fools the\nnetwork before", fontsize=11)
    axes[0, 3].set_title("what fools it\nafter hardening", fontsize=11)
    return figure


if __name__ == "__main__":
    draw(Path(sys.argv[1])).savefig(Path(__file__).parent / "picture.png", dpi=120)
