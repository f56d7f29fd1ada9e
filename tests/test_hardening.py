"""The job: hardening from Python, interrupted, resumed, and stopped in time."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import DEFENSE, RECIPE, TEST, TRAIN, Interrupt, summary
from deepdefense.app.runs import RunFolder, load_weights
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import dataset_from_arrays
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import Losses, training_backend
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    """A network trained a little on the blobs, with dropout, in float32."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 12),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(12, 3),
    )
    with torch.no_grad():
        net[1].weight.mul_(3)
    backend = training_backend("torch")
    trainer = RECIPE.make_trainer(backend, net)
    monitor = Monitor.draw(backend, dataset_from_arrays(*TRAIN, *TEST), 0, RHO_ATTACK)
    options: Any = {"recipe": RECIPE, "objective": Objective(), "checkpoint": None}
    run_training("reference", trainer, monitor, watcher=Watcher(), **options)
    return net


def harden(model: Any, **options: Any) -> tuple[Any, dd.HardeningReport]:
    return dd.harden(model, TRAIN, TEST, **{"defense": DEFENSE, "recipe": RECIPE, **options})


def same_weights(a: Any, b: Any) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_hardens_a_copy_and_reports_on_both(model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    model.eval()
    hardened, report = harden(model)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not same_weights(model, hardened)
    assert report.before == summary(model, *TEST)
    assert report.after == summary(hardened, *TEST)
    assert report.after.rho_2 > 1.5 * report.before.rho_2
    assert [record.epoch for record in report.history] == [1, 2, 3]
    assert report.history[-1].rho_2 == pytest.approx(report.after.rho_2)
    assert report.history[-1].accuracy == pytest.approx(report.after.accuracy)
    assert report.sample.n == 60
    assert report.sample.rho_2_before == pytest.approx(report.before.rho_2)
    assert report.cost.ratio > 1
    assert report.stopped is None
    assert hash(report) == hash(replace(report))
    first, second, *_ = str(report).splitlines()
    assert first.startswith(
        f"accuracy {100 * report.before.accuracy:.2f} % -> {100 * report.after.accuracy:.2f} %"
    )
    assert second.startswith("3 of 3 epochs, each step at ")


def test_is_reproducible(model: Any) -> None:
    (first, one), (second, two) = harden(model), harden(model)
    assert same_weights(first, second)
    assert one.after == two.after
    for change in ({"seed": 2}, {"flip": True}, {"shift": 1}):
        other, _ = harden(model, recipe=replace(RECIPE, **change))
        assert not same_weights(first, other)


def test_takes_tensors_as_it_takes_arrays(model: Any) -> None:
    tensors = [tuple(torch.as_tensor(part) for part in pair) for pair in (TRAIN, TEST)]
    expected, _ = harden(model)
    found, _ = dd.harden(model, *tensors, defense=DEFENSE, recipe=RECIPE)
    assert same_weights(found, expected)


def test_takes_examples_that_are_no_images() -> None:
    flat = [(x.reshape(len(x), -1), y) for x, y in (TRAIN, TEST)]
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 3).double()
    _, report = dd.harden(linear, *flat, defense=DEFENSE, recipe=RECIPE)
    assert report.stopped is None
    assert len(report.history) == RECIPE.epochs


def test_zero_epochs_change_nothing(model: Any) -> None:
    hardened, report = harden(model, recipe=replace(RECIPE, epochs=0))
    assert same_weights(hardened, model)
    assert report.history == ()
    assert report.before == report.after


def test_measures_in_the_norm_it_trains_in(model: Any) -> None:
    _, report = harden(model, defense=replace(DEFENSE, p=math.inf))
    assert report.after.p == math.inf
    assert report.after.rho_p is not None
    assert report.before.rho_p is not None
    assert report.after.rho_p > report.before.rho_p
    assert report.as_dict()["config"]["p"] == "inf"
    assert report.as_dict()["after"]["p"] == "inf"


def test_folder_holds_report_page_and_weights(model: Any, tmp_path: Path) -> None:
    hardened, report = harden(model, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"settings.json", "report.json", "report.html", "hardened.safetensors"}
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content == report.as_dict()
    assert list(content) == [
        "schema",
        "backend",
        "network",
        "data",
        "config",
        "environment",
        "before",
        "after",
        "history",
        "sample",
        "cost",
        "stopped",
        "warnings",
        "notes",
    ]
    keys = {"accuracy", "rho_2", "rho_2_median", "success", "iterations_mean", "n"}
    assert keys <= set(content["before"])
    assert keys <= set(content["after"])
    keys = {"loss", "cross_entropy", "penalty", "accuracy", "rho_2", "seconds"}
    assert keys <= set(content["history"][0])
    assert content["environment"]["device"] == "cpu"
    assert set(content["cost"]) == {"plain_step_seconds", "hardening_step_seconds", "ratio"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png;base64' in page  # blobs are [1 4 4], shown as images
    weights = load_weights(tmp_path / "run" / "hardened.safetensors")
    for name, value in hardened.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())


# Steps are 8 an epoch: in the first, in the second, in the third epoch; and after all of them.
@pytest.mark.parametrize(("task", "at"), [("harden", 3), ("harden", 12), ("evaluate after", 1)])
def test_interrupted_run_resumes_to_the_same_result(
    model: Any, tmp_path: Path, task: str, at: int
) -> None:
    moved = replace(RECIPE, flip=True, shift=1)
    expected, report = harden(model, recipe=moved)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=moved, out=tmp_path / "run", watcher=Interrupt(task, at))
    assert not (tmp_path / "run" / "report.json").exists()
    with pytest.raises(dd.InputError, match="is not empty: go on with resume"):
        harden(model, recipe=moved, out=tmp_path / "run")
    found, resumed = harden(model, recipe=moved, out=tmp_path / "run", resume=True)
    assert same_weights(found, expected)
    assert resumed.after == report.after
    for one, other in zip(resumed.history, report.history, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)
    with pytest.raises(dd.InputError, match="is complete: there is nothing to resume"):
        harden(model, recipe=moved, out=tmp_path / "run", resume=True)


def test_resumes_only_as_it_began(model: Any, tmp_path: Path) -> None:
    with pytest.raises(dd.InputError, match="there is no run to resume in"):
        harden(model, out=tmp_path / "run", resume=True)
    with pytest.raises(dd.InputError, match="resume needs the folder of the run: out"):
        harden(model, resume=True)
    with pytest.raises(KeyboardInterrupt):
        harden(model, out=tmp_path / "run", watcher=Interrupt("harden", 12))
    with pytest.raises(dd.InputError, match="began with recipe = "):
        harden(model, out=tmp_path / "run", resume=True, recipe=replace(RECIPE, lr=1.0))
    other, _ = harden(model, recipe=replace(RECIPE, epochs=1))
    with pytest.raises(dd.InputError, match="began with weights = "):
        harden(other, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("lr", [1e3, 1e30])
def test_divergence_stops_at_the_last_good_epoch(model: Any, tmp_path: Path, lr: float) -> None:
    hardened, report = harden(model, recipe=replace(RECIPE, lr=lr), out=tmp_path / "run")
    assert report.stopped is not None
    assert "nothing was changed" in report.stopped
    assert "lower learning rate" in report.stopped
    assert same_weights(hardened, model)
    assert report.history == ()
    assert report.after == report.before
    weights = load_weights(tmp_path / "run" / "hardened.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    assert json.loads((tmp_path / "run" / "report.json").read_text())["stopped"] == report.stopped


def test_later_divergence_keeps_the_epochs_before(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_epoch, _ = harden(model, recipe=replace(RECIPE, epochs=1, decay=1.0))
    rates = {0: RECIPE.lr, 1: 1e30}
    monkeypatch.setattr(dd.Recipe, "rate", lambda recipe, epoch, part: rates[epoch])
    hardened, report = harden(model)
    assert report.stopped is not None
    assert "epoch 2; the weights of epoch 1 are kept" in report.stopped
    assert len(report.history) == 1
    assert same_weights(hardened, one_epoch)


def test_a_failed_epoch_is_tried_again_more_slowly(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rate that one halving makes fit: the epoch is taken back, and the run goes on."""
    rate = dd.Recipe.rate
    monkeypatch.setattr(
        dd.Recipe, "rate", lambda r, epoch, part: 1e30 if r.lr > 0.01 else rate(r, epoch, part)
    )
    recipe = replace(RECIPE, lr=0.02)
    hardened, report = harden(model, recipe=recipe)
    assert report.stopped is None
    assert len(report.history) == 3
    (note,) = report.notes
    assert "epoch 1: taken back, and tried again at 0.5 of the learning rate" in note
    expected, _ = harden(model)  # at half of that rate from the start
    assert same_weights(hardened, expected)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path / "run", watcher=Interrupt("harden", 12))
    again, resumed = harden(model, recipe=recipe, out=tmp_path / "run", resume=True)
    assert same_weights(again, expected)
    assert resumed.notes == report.notes


class Ruin(Objective):
    """Training that drives accuracy down, as a penalty that is far too large would."""

    def losses(self, *arguments: Any) -> Losses:
        found = super().losses(*arguments)
        return found._replace(total=-found.total)


def test_accuracy_is_kept_by_examples_set_aside(model: Any) -> None:
    recipe = replace(RECIPE, lr=0.05)
    guard = dd.Guard(max_accuracy_drop=0.05, retries=12)
    _, lost = harden(model, defense=Ruin(), recipe=recipe, guard=dd.Guard(retries=0))
    assert lost.stopped is not None
    assert "training accuracy collapsed in epoch 1" in lost.stopped
    kept, report = harden(model, defense=Ruin(), recipe=recipe, guard=guard)
    assert "on the examples set aside fell by more than 5.0% in epoch 1" in report.notes[0]
    assert report.history
    x, y = TRAIN
    aside = np.random.default_rng((recipe.seed, 1)).permutation(len(x))[:15]
    floor = summary(model, x[aside], y[aside]).accuracy - 0.05
    assert summary(kept, x[aside], y[aside]).accuracy >= floor
    unlike = (TEST[0], (TEST[1] + 1) % 3)
    _, other = dd.harden(model, TRAIN, unlike, defense=Ruin(), recipe=recipe, guard=guard)
    assert other.notes == report.notes  # held-out data decide nothing


def test_ends_when_robustness_no_longer_grows(model: Any) -> None:
    still = dd.DeepDefense(lam=0.0)
    _, report = harden(
        model, defense=still, recipe=replace(RECIPE, epochs=9, lr=1e-12), guard=dd.Guard(patience=2)
    )
    assert len(report.history) == 3
    assert report.stopped is None
    assert report.notes == ("ended after epoch 3: rho_2 on the examples set aside no longer grew",)


def test_penalty_fits_itself_to_the_network(model: Any) -> None:
    found = dd.calibrate(model, *TRAIN)
    assert found.c * summary(model, *TRAIN).rho_2_median == pytest.approx(1.5, rel=0.01)
    assert found.d == pytest.approx(found.c / 5, rel=0.01)
    _, report = dd.harden(model, TRAIN, TEST, recipe=replace(RECIPE, epochs=1, clip="auto"))
    assert report.defense == dd.calibrate(model, *TRAIN, seed=RECIPE.seed)
    assert isinstance(report.recipe.clip, float)
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        constant[1].weight.zero_()
    with pytest.raises(dd.InputError, match="c cannot be fitted to this network"):
        dd.calibrate(constant, *TRAIN)


def test_a_stopped_run_resumes_as_stopped(model: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lr=1e30)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path, watcher=Interrupt("evaluate after", 1))
    hardened, report = harden(model, recipe=recipe, out=tmp_path, resume=True)
    assert report.stopped is not None
    assert same_weights(hardened, model)


def test_gives_the_network_back_as_it_came(model: Any) -> None:
    model.eval()
    model[1].training = True  # a mode of its own, as frozen layers have
    hardened, _ = harden(model)
    model[1].training = False
    assert [module.training for module in hardened] == [False, True, False, False, False]
    assert all(parameter.grad is None for parameter in hardened.parameters())
    x = torch.tensor(TEST[0], dtype=torch.float32)
    assert torch.equal(hardened(x), hardened(x))  # no dropout at work


def test_a_model_in_training_mode_is_told(model: Any) -> None:
    for mode, status in ((True, "warn"), (False, "pass")):
        model.train(mode)
        found = dd.doctor(model, TEST[0].astype(np.float32), TEST[1])
        assert next(c.status for c in found.checks if c.name == "training mode") == status


def test_one_example_more_than_a_batch_is_one_batch(model: Any) -> None:
    x, y = TRAIN
    _, report = dd.harden(
        model, (x[:31], y[:31]), TEST, defense=DEFENSE, recipe=replace(RECIPE, batch_size=30)
    )
    assert report.cost.ratio > 0


def test_a_gradient_without_size_leaves_steps_unclipped(model: Any) -> None:
    _, report = harden(
        model,
        defense=dd.DeepDefense.fast(lam=1e38),
        recipe=replace(RECIPE, clip="auto"),
        guard=dd.Guard(retries=0),
    )
    assert report.stopped is not None
    assert "no longer finite" in report.stopped
    assert report.recipe.clip is None
    assert "no clip: the gradient before training" in report.warnings[-1]


def test_warns_of_a_network_that_knows_nothing(model: Any) -> None:
    x, y = TEST
    _, report = dd.harden(model, TRAIN, (x, (y + 1) % 3), recipe=replace(RECIPE, epochs=0))
    assert len(report.warnings) == 1
    assert "preprocessed in this way?" in report.warnings[0]


def test_bad_input_is_told(model: Any, tmp_path: Path) -> None:
    x, y = TRAIN
    with pytest.raises(dd.InputError, match=r"does not take examples of shape \[5\]"):
        dd.harden(model, (np.ones((9, 5)), y[:9]), (np.ones((9, 5)), y[:9]))
    with pytest.raises(dd.InputError, match="sets all 150 training examples aside"):
        harden(model, out=tmp_path / "run", guard=dd.Guard(patience=1, validation=0.999))
    assert not (tmp_path / "run").exists()
    for data in ((x, y[:7]), (x, np.eye(3)[y]), (x[:0], y[:0])):
        with pytest.raises(dd.InputError, match=r"label|no example"):
            dd.calibrate(model, *data)
    with pytest.raises(dd.InputError, match="TRADES has none to calibrate"):
        dd.calibrate(model, x, y, dd.baselines.TRADES())
    with pytest.raises(dd.InputError, match="it returned probabilities"):
        harden(torch.nn.Sequential(model, torch.nn.Softmax(1)))

    class Outputs(torch.nn.Module):
        """As models do that return more than logits."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Any) -> dict[str, Any]:
            return {"logits": self.inner(x)}

    with pytest.raises(dd.InputError, match=r"nothing else, it returned dict: wrap it"):
        harden(Outputs())
    with pytest.raises(dd.InputError, match=r"no parameters to train .* function"):
        dd.harden(lambda x: model(x), tuple(map(torch.tensor, TRAIN)), TEST)
    with pytest.raises(dd.InputError, match=r"must return logits .* for 8 classes"):
        dd.harden(model, (x[:8], np.arange(8)), (x[:8], np.arange(8)))
    with pytest.raises(dd.InputError, match="NaN or infinite"):
        dd.harden(model, (x * np.nan, y), TEST)
    with pytest.raises(dd.InputError, match=r"train must be a pair .* got DataLoader"):
        dd.harden(model, torch.utils.data.DataLoader(TRAIN), TEST)  # type: ignore[arg-type]
    with pytest.raises(dd.InputError, match="defense must be of the class Objective, got 'trades'"):
        harden(model, defense="trades")
    with pytest.raises(dd.InputError, match="every parameter of the model is frozen"):
        harden(copy.deepcopy(model).requires_grad_(False))
    with pytest.raises(dd.InputError, match="integers"):
        dd.harden(model, (x, y * 0.5), TEST)
    with (
        dd.use_backend("numpy"),
        pytest.raises(dd.InputError, match="evaluates but does not train"),
    ):
        dd.harden(model, TRAIN, TEST)
    with pytest.raises(dd.InputError, match="shift must be less than the sides of the images"):
        harden(model, recipe=replace(RECIPE, shift=4), out=tmp_path / "not-begun")
    assert not (tmp_path / "not-begun").exists()
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(dd.InputError, match="is not empty: choose another folder"):
        harden(model, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_checkpoint_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "run", {"a": 1})
    run.save("w.safetensors", {"x": np.arange(3.0)}, {"about": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.save("w.safetensors", {"x": np.arange(9.0)}, {"about": 2})
    found = run.load("w.safetensors")
    assert found is not None
    np.testing.assert_array_equal(found[0]["x"], np.arange(3.0))
    assert found[1] == {"about": 1}
    assert {path.name for path in run.path.iterdir()} == {"settings.json", "w.safetensors"}


def test_trainer_goes_back_to_any_state(model: Any) -> None:
    backend = training_backend("torch")
    trainer = RECIPE.make_trainer(backend, backend.copy(model))
    start = trainer.state()
    assert set(start) == {f"weights.{name}" for name in model.state_dict()}
    monitor = Monitor.draw(backend, dataset_from_arrays(*TRAIN, *TEST), 0, RHO_ATTACK)
    options: Any = {
        "recipe": RECIPE,
        "objective": Objective(),
        "checkpoint": None,
        "watcher": Watcher(),
    }
    run_training("plain", trainer, monitor, **options)
    end = trainer.state()
    assert any(key.startswith("momentum.") for key in end)
    trainer.restore(start)
    run_training("plain", trainer, monitor, **options)
    assert all(np.array_equal(value, end[key]) for key, value in trainer.state().items())
