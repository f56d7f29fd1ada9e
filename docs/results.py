"""Write the README's table from the reports in docs/results: `python docs/results.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: written by docs/results.py -->\n", "<!-- /results -->\n"
# The paper's accuracy and rho_2 after hardening (Yan, Guo and Zhang, 2018, table 1), as remembered:
# not checked against the paper.
PAPER = {("mnist", "mlp"): "98.65 %, .225", ("mnist", "lenet"): "99.34 %, .284"}
HEAD = """\
| data, network | gradient | accuracy | rho_2 | paper (from memory) | settings | step / plain |
|---|---|---|---|---|---|---|
"""


def row(report: dict[str, Any]) -> str:
    """One line of the table."""
    before, after, config = report["before"], report["after"], report["config"]
    data, network = report["data"]["name"], report["network"]["name"]
    settings = (
        f"{config['epochs']} epochs, lr {config['lr']:g}, λ {config['lam']:g}, c {config['c']:g}"
    )
    cells = (
        f"{data}, {network}",
        config["gradient"],
        f"{100 * before['accuracy']:.2f} → {100 * after['accuracy']:.2f} %",
        f"{before['rho_2']:.4f} → {after['rho_2']:.4f}",
        PAPER.get((data, network), ""),
        settings,
        f"{report['cost']['ratio']:.1f}",
    )
    return f"| {' | '.join(cells)} |\n"


def readme(text: str) -> str:
    """The README with its table made anew."""
    reports = [json.loads(p.read_text()) for p in sorted((ROOT / "docs/results").glob("*.json"))]
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{HEAD}{''.join(map(row, reports))}{END}{tail}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(
            0 if readme(old) == old else "README.md is not what docs/results.py writes: run it"
        )
    path.write_text(readme(old), encoding="utf-8")
