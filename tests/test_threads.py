"""Tests of the choice of the number of CPU threads, with a backend and a clock that are fakes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import DEFENSE, RECIPE, TEST, TRAIN, Interrupt
from commands import BLOBS, enter_user_folder
from deepdefense.app.run_folder import RunFolder
from deepdefense.app.threads import RunThreads
from deepdefense.seam import threads
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.progress import Watcher
from deepdefense.seam.threads import Timings, fit_threads
from deepdefense.seam.training_contract import TrainingBackend


class FakeBackend(TrainingBackend):
    """A backend whose trials take `seconds[n]` with n threads, by the clock `time`."""

    def __init__(self, limit: int | None, seconds: Mapping[int, float]) -> None:
        self.threads, self.seconds = limit, seconds
        self.now, self.used = 0.0, list[int]()

    def thread_count(self, model: Any, x: Any) -> int | None:
        return self.threads

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        before, self.threads = self.threads, count
        self.used.append(count)
        try:
            yield
        finally:
            self.threads = before

    def work(self) -> None:
        assert self.threads is not None
        self.now += self.seconds[self.threads]

    def time(self) -> float:
        return self.now


FakeBackend.__abstractmethods__ = frozenset()  # a test calls no other method


class Lines(Watcher):
    """A watcher that keeps the messages, and the number of PyTorch's threads in each task."""

    def __init__(self) -> None:
        self.lines, self.counts = list[str](), set[int]()

    def begin(self, task: str, total: int) -> None:
        import torch

        self.counts.add(torch.get_num_threads())

    def say(self, line: str) -> None:
        self.lines.append(line)


def fit(backend: Any, watcher: Watcher | None = None, record: Any = None) -> Any:
    return fit_threads(
        backend,
        None,
        None,
        lambda: backend.work,
        record=record,
        watcher=watcher or Watcher(),
        clock=backend.time,
    )


@pytest.mark.parametrize(
    ("limit", "seconds", "chosen"),
    [
        (2, {1: 0.02, 2: 0.01}, 2),
        (2, {1: 0.02, 2: 0.018}, 1),  # the gain is small
        (2, {1: 0.02, 2: 0.8}, 1),  # the threads wait for a busy core
        (2, {1: 0.5, 2: 0.8}, 2),  # the trial is too long to be repeated
        (16, {1: 0.02, 4: 0.01, 16: 0.0095}, 4),
        (16, {1: 0.02, 4: 0.02, 16: 0.004}, 16),
        (1, {}, 1),
    ],
)
def test_the_fewest_threads_that_are_fast_are_chosen(
    limit: int, seconds: Mapping[int, float], chosen: int
) -> None:
    backend, watcher = FakeBackend(limit, seconds), Lines()
    with fit(backend, watcher):
        assert backend.threads == chosen
    assert backend.threads == limit
    assert max(backend.used) <= limit
    assert backend.now < 2.5
    assert [line.partition(":")[0] for line in watcher.lines] == (
        [f"{chosen} of {limit} CPU threads"] if chosen < limit else []
    )


def test_the_number_is_restored_after_an_exception() -> None:
    backend = FakeBackend(2, {1: 0.01, 2: 0.1})
    with pytest.raises(RuntimeError, match="1 thread"), fit(backend):
        raise RuntimeError(f"{backend.threads} thread")
    assert backend.threads == 2
    with pytest.raises(KeyError), fit(FakeBackend(2, {1: 0.01})):  # a trial fails
        pass
    with fit(backend):  # another context can open
        assert backend.threads == 1


def test_without_control_over_the_threads_nothing_happens() -> None:
    backend = FakeBackend(None, {})
    with fit(backend):
        assert backend.used == []
    with fit_threads(
        get_backend("numpy"), None, np.zeros((1, 2)), pytest.fail, record=None, watcher=Watcher()
    ):
        pass


def test_only_the_outermost_context_sets_the_number() -> None:
    outer, inner = FakeBackend(2, {1: 0.01, 2: 0.1}), FakeBackend(2, {1: 0.01, 2: 0.1})

    def use_inner() -> None:
        with fit(inner):
            assert inner.threads == 2

    with fit(outer):
        use_inner()
        thread = threading.Thread(target=use_inner)
        thread.start()
        thread.join()
        assert outer.threads == 1
    assert inner.used == []


def test_a_resumed_run_uses_the_number_of_its_start(tmp_path: Path) -> None:
    record = RunThreads(RunFolder.create(tmp_path / "run", {"command": "harden"}))
    fast, slow = {1: 0.02, 2: 0.01}, {1: 0.02, 2: 0.1}
    with fit(FakeBackend(2, slow), record=record):
        pass
    for limit, seconds in ((2, fast), (1, {})):
        backend = FakeBackend(limit, seconds)
        with fit(backend, record=record):
            assert (backend.threads, backend.now) == (1, 0.0)
    with fit(FakeBackend(2, fast), record=RunThreads(RunFolder(tmp_path / "other"))):
        pass
    assert RunThreads(RunFolder(tmp_path / "other")).load() == 2


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """PyTorch with three threads, where one thread is the fastest."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "time_threads", lambda *_: Timings(1, {1: 0.1, 3: 0.2}))
    yield torch
    torch.set_num_threads(before)


@pytest.mark.only("torch")
def test_harden_and_evaluate_set_and_restore_the_number(torch: Any) -> None:
    model, watcher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), Lines()
    model, report = dd.harden(model, TRAIN, TEST, defense=DEFENSE, recipe=RECIPE, watcher=watcher)
    assert (watcher.counts, torch.get_num_threads()) == ({1}, 3)
    assert "1 of 3 CPU threads: a trial takes 100 ms, with 3 threads 200 ms" in watcher.lines
    assert report.environment["threads"] == 1
    watcher = Lines()
    assessment = dd.evaluate(model, *TEST, preset="quick", watcher=watcher)
    assert (watcher.counts, torch.get_num_threads()) == ({1}, 3)
    assert assessment.manifest["environment"]["threads"] == 1
    for task in ("harden", "evaluate before"):
        with pytest.raises(KeyboardInterrupt):
            dd.harden(model, TRAIN, TEST, recipe=RECIPE, watcher=Interrupt(task, 1))
        assert torch.get_num_threads() == 3


@pytest.mark.only("torch")
def test_an_interrupted_run_keeps_the_number_until_it_is_complete(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), tmp_path / "run"
    options: dict[str, Any] = {"defense": DEFENSE, "recipe": RECIPE, "out": path}
    with pytest.raises(KeyboardInterrupt):
        dd.harden(model, TRAIN, TEST, **options, watcher=Interrupt("harden", 12))
    monkeypatch.setattr(threads, "time_threads", pytest.fail)
    _, report = dd.harden(model, TRAIN, TEST, **options, resume=True)
    assert report.environment["threads"] == 1
    assert not (path / "threads.json").exists()


@pytest.mark.only("torch")
def test_the_commands_set_and_restore_the_number(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepdefense.app.jobs.evaluate import find_hardened, run_evaluate
    from deepdefense.app.jobs.harden import run_harden

    enter_user_folder(tmp_path, monkeypatch)
    options = {
        "data": BLOBS["data"],
        "network": BLOBS["network"],
        "epochs": 1,
        "c": 2.0,
        "batch_size": 50,
    }
    watcher = Lines()
    _, folder = run_harden(options, out=Path("run"), resume=False, watcher=watcher)
    assert (watcher.counts, torch.get_num_threads()) == ({1}, 3)
    watcher = Lines()
    options = find_hardened(folder) | {"preset": "quick", "examples": 20}
    run_evaluate(options, out=Path("evaluation"), resume=False, watcher=watcher)
    assert (watcher.counts, torch.get_num_threads()) == ({1}, 3)
    assert not list(tmp_path.glob("*/threads.json"))


@pytest.mark.only("torch")
def test_threads_of_compiled_and_gpu_models_are_not_measured(torch: Any) -> None:
    backend = get_backend("torch")
    assert isinstance(backend, TrainingBackend)
    x, model = torch.zeros(2, 4), torch.nn.Sequential(torch.nn.Linear(4, 3))
    assert backend.thread_count(model, x) == 3
    assert backend.thread_count(None, x) == 3
    assert backend.thread_count(model, torch.zeros(2, 4, device="meta")) is None
    assert backend.thread_count(torch.compile(model), x) is None
    assert backend.thread_count(torch.compile(lambda x: x), x) is None
    assert backend.thread_count(torch.nn.Sequential(torch.compile(model)), x) is None
    model.compile()
    assert backend.thread_count(model, x) is None
