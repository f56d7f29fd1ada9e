"""Tests of hardening in stages: which stages are accepted, and what comes back without a gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
import deepdefense.training.stages as stages_module
from blobs import TEST, TRAIN, Interrupt, draw_blobs
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.network_checks import count_weights
from deepdefense.training.parameters import (
    copy_parameters,
    interpolate_parameters,
    shuffle_parameters,
)
from deepdefense.training.stages import GENTLE_STRENGTHS, Judge, Measured, Strength, strengthen
from torch_blobs import have_same_weights, torch, train_network

pytestmark = pytest.mark.only("torch")

RECIPE = dd.Recipe.staged(len(TRAIN[1]), optimizer_steps=80, batch_size=20)


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


@pytest.fixture(scope="module")
def staged(model: Any) -> tuple[Any, dd.HardeningReport]:
    return harden_in_stages(model)


def harden_in_stages(model: Any, **options: Any) -> tuple[Any, dd.HardeningReport]:
    return dd.harden(model, TRAIN, TEST, **{"recipe": RECIPE, **options})


def try_stages(*results: tuple[float, float]) -> list[tuple[Strength, str]]:
    """Return the strength and the rejection of each stage if the stages have these results."""
    queue = [Measured(*result) for result in results]
    kept: list[None] = []
    judge = Judge(floor=0.9, initial=Measured(0.95, 1.0))
    stages = strengthen(lambda strength: queue.pop(0), lambda: kept.append(None), judge)
    assert not queue
    assert len(kept) == sum(stage.accepted for stage in stages)
    return [(stage.strength, stage.rejection) for stage in stages]


def test_stages_go_on_while_distance_grows_and_accuracy_holds() -> None:
    first, second, third, fourth = stages_module.PENALTY_STRENGTHS
    assert try_stages((0.95, 1.3), (0.95, 1.35)) == [(first, ""), (second, "distance")]
    assert try_stages((0.95, 1.3), (0.89, 2.0)) == [(first, ""), (second, "accuracy")]
    zero, infinite = Measured(0.95, 0.0), Measured(0.95, float("inf"))
    assert Judge(0.9, zero).judge(first, zero, zero).rejection == "distance"
    assert Judge(0.9, infinite).judge(first, infinite, infinite).rejection == "distance"
    assert try_stages((0.95, 1.01)) == [(first, "distance")]
    accepted = [(strength, "") for strength in (first, second, third, fourth)]
    assert try_stages((0.9, 2.0), (0.9, 3.0), (0.9, 4.0), (0.9, 5.0)) == accepted


def test_a_first_stage_that_costs_accuracy_is_followed_by_a_gentle_one() -> None:
    first, (gentle, gentler) = stages_module.PENALTY_STRENGTHS[0], GENTLE_STRENGTHS
    bad, good = (0.5, 9.0), (0.95, 1.2)
    assert try_stages(bad, good) == [(first, "accuracy"), (gentle, "")]
    rejected = [(first, "accuracy"), (gentle, "accuracy")]
    assert try_stages(bad, bad, good) == [*rejected, (gentler, "")]
    assert try_stages(bad, bad, bad) == [*rejected, (gentler, "accuracy")]


def test_the_allowed_drop_is_one_standard_error_or_as_given() -> None:
    floor = Judge.from_initial(Measured(0.95, 1.0), 2000, None).floor
    assert floor == pytest.approx(0.95 - np.sqrt(0.95 * 0.05 / 2000), abs=0.0005)
    assert Judge.from_initial(Measured(1.0, 1.0), 200, None).floor == pytest.approx(0.995)
    assert Judge.from_initial(Measured(0.9, 1.0), 100, None).floor == pytest.approx(0.89)
    assert Judge.from_initial(Measured(0.9, 1.0), 100, 0.0).floor == pytest.approx(0.9)


def test_shuffled_parameters_keep_their_values_and_lose_their_places(model: Any) -> None:
    backend = training_backend("torch")
    trainer = RECIPE.make_trainer(backend, backend.copy(model))
    before = copy_parameters(backend, trainer)
    shuffle_parameters(backend, trainer, 0)
    after = copy_parameters(backend, trainer)
    for name, value in before.items():
        np.testing.assert_array_equal(np.sort(after[name], None), np.sort(value, None))
        assert np.array_equal(after[name], value) == (value.ndim == 1)
    interpolate_parameters(backend, trainer, before, 0.25)
    for name, value in copy_parameters(backend, trainer).items():
        np.testing.assert_allclose(value, 0.75 * before[name] + 0.25 * after[name], rtol=1e-5)


def test_default_settings_are_found_by_a_rehearsal(
    model: Any, staged: tuple[Any, dd.HardeningReport]
) -> None:
    hardened, report = staged
    rehearsal = report.rehearsal
    assert rehearsal is not None
    assert rehearsal.accepted
    assert rehearsal.from_shuffled_weights
    # Five folds of 30 examples set each of the 150 training examples aside once.
    assert rehearsal.examples == 150
    assert report.no_gain is None
    assert report.verdict.distance_change == "more"
    assert report.verdict.accuracy_change != "less"
    periods = 10 * len(rehearsal.accepted)
    assert [record.epoch for record in report.history] == list(range(1, periods + 1))
    assert report.history[-1].steps == 80 * len(rehearsal.accepted)
    assert isinstance(report.defense, dd.DeepDefense)
    last = rehearsal.accepted[-1]
    fitted = dd.calibrate(model, *TRAIN, report.defense, steepness=1.0)
    assert report.defense.c == pytest.approx(last.steepness * fitted.c)
    assert not have_same_weights(hardened, model)
    assert "after a rehearsal of" in str(report)


def test_staged_hardening_is_repeatable_and_changes_nothing_else(
    model: Any, staged: tuple[Any, dd.HardeningReport]
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    hardened, report = harden_in_stages(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert have_same_weights(hardened, staged[0])
    assert report.rehearsal == staged[1].rehearsal


def test_validation_examples_replace_the_rehearsal(model: Any) -> None:
    validation = draw_blobs(90, 2)
    hardened, report = harden_in_stages(model, validation=validation)
    rehearsal = report.rehearsal
    assert rehearsal is not None
    assert not rehearsal.from_shuffled_weights
    assert rehearsal.examples == 90
    assert report.history[-1].steps == 80 * len(rehearsal.accepted)
    last = [stage for stage in rehearsal.stages if stage.accepted][-1]
    x, y = torch.tensor(validation[0], dtype=torch.float32), torch.tensor(validation[1])
    accuracy = float((hardened.eval()(x).argmax(1) == y).double().mean())
    assert accuracy == pytest.approx(last.accuracy)
    with pytest.raises(dd.InputError, match="shapes must agree"):
        harden_in_stages(model, validation=(np.ones((3, 5)), np.zeros(3, int)))
    with pytest.raises(dd.InputError, match="validation"):
        harden_in_stages(model, validation=TEST[0])


def test_without_a_gain_the_given_network_comes_back(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_module, "LEAST_GAIN", 100.0)
    returned, report = harden_in_stages(model, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No gain: the given network is returned as it is" in page
    assert "rejected: the distance hardly grew" in page
    assert have_same_weights(returned, model)
    assert returned is not model
    assert report.history == ()
    assert report.no_gain is not None
    assert report.no_gain.endswith("stronger penalties move the boundary no further")
    assert any(report.no_gain in line for line in report.warnings)
    assert report.verdict.distance_change == "unclear"
    assert report.after == report.before


def test_a_network_that_has_not_learnt_its_data_is_named(model: Any) -> None:
    torch.manual_seed(3)
    unlearnt = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    _, report = harden_in_stages(unlearnt, recipe=replace(RECIPE, optimizer_steps=50))
    assert any("has not learnt its training data" in line for line in report.warnings)


def test_settings_that_do_not_go_with_stages_raise(model: Any) -> None:
    with pytest.raises(dd.InputError, match="a stage needs a number of optimizer steps"):
        harden_in_stages(model, recipe=dd.Recipe(stages=True))
    few = (TRAIN[0][:9], TRAIN[1][:9])
    with pytest.raises(dd.InputError, match="9 training examples are too few to set some aside"):
        dd.harden(model, few, TEST)
    with pytest.raises(dd.InputError, match="patience ends a single run"):
        harden_in_stages(model, guard=dd.Guard(patience=2))
    with pytest.raises(dd.InputError, match="validation examples judge stages"):
        harden_in_stages(model, recipe=dd.Recipe.paper(), validation=TEST)
    with pytest.raises(dd.InputError, match="PGDTraining has none: give a recipe without stages"):
        harden_in_stages(model, defense=dd.baselines.PGDTraining(eps=0.1))


def test_an_interrupted_stage_resumes_to_the_same_result(
    model: Any, staged: tuple[Any, dd.HardeningReport], tmp_path: Path
) -> None:
    expected, report = staged
    assert report.rehearsal is not None
    stages = len(report.rehearsal.accepted)
    task = f"harden, stage {stages} of {stages}"
    with pytest.raises(KeyboardInterrupt):
        harden_in_stages(model, out=tmp_path / "run", watcher=Interrupt(task, 27))
    rehearse = Interrupt("rehearse c rho 1, part 1 of 5", 1)  # raises if the rehearsal is repeated
    hardened, resumed = harden_in_stages(model, out=tmp_path / "run", resume=True, watcher=rehearse)
    assert have_same_weights(hardened, expected)
    assert resumed.rehearsal == report.rehearsal
    assert [replace(record, seconds=0) for record in resumed.history] == [
        replace(record, seconds=0) for record in report.history
    ]


def test_frozen_parameters_are_neither_shuffled_nor_trained(model: Any) -> None:
    frozen = train_network()
    frozen[1].requires_grad_(False)
    hardened, report = harden_in_stages(frozen, recipe=replace(RECIPE, optimizer_steps=20))
    assert torch.equal(hardened[1].weight, frozen[1].weight)
    assert count_weights(dd.get_backend("torch"), hardened) == report.network.parameters
