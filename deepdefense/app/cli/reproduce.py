"""The command `deepdefense reproduce`: its options, its output and its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from deepdefense.app.cli.options import option, switch, with_options
from deepdefense.app.cli.terminal import TerminalWatcher
from deepdefense.app.jobs.reproduce import run_study
from deepdefense.app.jobs.settings import REPRODUCE

__all__ = ["reproduce_command"]


@with_options(REPRODUCE)
def reproduce_command(
    table: Annotated[
        Literal["table1", "table2", "epochs", "ablation", "layers", "cost"],
        option(
            "table1: the paper's; table2: under stronger attacks; epochs: accuracy and rho_2 after "
            "each epoch; ablation: other c, d and lambda; layers: the penalty on one layer at a "
            "time; cost: time and memory.",
            "Study",
        ),
    ],
    /,
    *,
    quick: Annotated[bool, switch("A smoke run of minutes, on scikit-learn's digits.")] = False,
    out: Annotated[
        Path, option("Folder of the study; what it holds already is not done again.")
    ] = Path("runs/study"),
    **options: Any,
) -> int:
    """Repeat the paper's study: train networks by every method, attack them, and write a table.

    Writes TABLE.json, TABLE.md and TABLE.html into the folder, which has a sub-folder for each
    trained network. After an interruption, the same command continues the study.
    """
    with TerminalWatcher() as watcher:
        page = run_study(
            table,
            options,
            quick=quick,
            out=out,
            command=_quote_command(table, quick, options),
            watcher=watcher,
        )
    print(page)
    return 0


def _quote_command(table: str, quick: bool, options: Mapping[str, Any]) -> str:
    """Return the command line of this run as text for the report.

    The text leaves out --data-dir, because the path of the data differs between machines.
    """
    words = ["deepdefense", "reproduce", table, *["--quick"] * quick]
    for name, value in options.items():
        if name != "data_dir":
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)
