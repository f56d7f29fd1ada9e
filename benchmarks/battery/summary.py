"""Summarise the runs of the battery: does `dd.harden` keep up with the best rival?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SUMMARY_SCHEMA", "judge_run", "summarise"]

SUMMARY_SCHEMA = "deepdefense.battery/1"
REACHED_SHARE = 0.95  # of the growth of the best rival
ROUNDING = 1e-9  # an accuracy may be below the floor by this, which is rounding

Row = Mapping[str, Any]


def judge_run(run: Row) -> dict[str, Any]:
    """Return one line of the summary: one run, compared with its best rival.

    - `best`, `best_lr`, `best_growth`: the rival with the largest growth among those that keep the
      accuracy floor. The given network is a rival too, with the growth 1. They are None if the
      run has no rivals.
    - `reached`: whether the growth of `dd.harden` is at least 95 % of `best_growth`. It is None if
      the run has no rivals, or if the growth is not known.
    - `below_floor`: whether the hardened network is less accurate than the floor.
    - `nearer`: whether its median distance is smaller than that of the given network.
    - `clearly_nearer`: whether the 95 % interval of the growth lies below 1.
    """
    default, floor = run["default"], run["floor"]
    growth, high = default["growth"], default["growth_interval"][1]
    best = _find_best(run) if run["complete"] else None
    compared = best is not None and growth is not None
    return {
        "pair": run["pair"],
        "title": run["title"],
        "framework": run["framework"],
        "seed": run["seed"],
        "accuracy_before": run["given"]["accuracy"],
        "accuracy_after": default["accuracy"],
        "floor": floor,
        "growth": growth,
        "steps": default["steps"],
        "seconds": default["seconds"],
        "best": best and best["method"],
        "best_lr": best and best["lr"],
        "best_accuracy": best and best["accuracy"],
        "best_growth": best and best["growth"],
        "reached": growth >= REACHED_SHARE * best["growth"] if compared else None,
        "below_floor": default["accuracy"] < floor - ROUNDING,
        "nearer": growth is not None and growth < 1,
        "clearly_nearer": high is not None and high < 1,
        "told": default["told"],
    }


def _find_best(run: Row) -> Row:
    """Return the row of the best rival, or of the given network if no rival is better."""
    best: Row = {
        "method": "given",
        "lr": None,
        "growth": 1.0,
        "accuracy": run["given"]["accuracy"],
    }
    for rival in run["rivals"]:
        if "failed" in rival or rival["growth"] is None:
            continue
        if rival["accuracy"] >= run["floor"] - ROUNDING and rival["growth"] > best["growth"]:
            best = rival
    return best


def summarise(runs: Sequence[Row]) -> dict[str, Any]:
    """Return the summary of complete and incomplete runs, with a line for each run.

    `reached_share` is the share of runs, among those with rivals, whose `reached` is true. It is
    None if no run has rivals.
    """
    lines = [judge_run(run) for run in runs]
    compared = [line for line in lines if line["reached"] is not None]
    reached = sum(line["reached"] for line in compared)
    return {
        "runs": len(lines),
        "compared": len(compared),
        "reached": reached,
        "reached_share": reached / len(compared) if compared else None,
        **{
            key: sum(line[key] for line in lines)
            for key in ("below_floor", "nearer", "clearly_nearer")
        },
        "unmeasured": sum(line["growth"] is None for line in lines),
        "geometric_mean_growth": _average_growth([line["growth"] for line in lines]),
        "geometric_mean_best_growth": _average_growth([line["best_growth"] for line in compared]),
        "lines": lines,
    }


def _average_growth(growths: Sequence[float | None]) -> float | None:
    """Return the geometric mean of the positive growths, or None if there are none."""
    logs = [math.log(growth) for growth in growths if growth]
    return math.exp(sum(logs) / len(logs)) if logs else None
