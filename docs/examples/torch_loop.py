"""Add the Deep Defense penalty to the loss of a plain PyTorch training loop."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import deepdefense as dd


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    torch.manual_seed(0)
    # The data are forty Gaussian blobs, ten for each of the four classes.
    centres = torch.randn(40, 10)
    blob = torch.randint(0, 40, (768,))
    examples, labels = centres[blob] + 0.15 * torch.randn(768, 10), blob % 4
    x, y = examples[:512], labels[:512]

    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    before = dd.evaluate(model, examples[512:], labels[512:])

    defense = dd.DeepDefense(c=5.0, steps=3)  # c * rho_2 should be about 1 to 6
    for _ in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y) + defense(model, x, y).mean()
        loss.backward()
        optimizer.step()
    after = dd.evaluate(model, examples[512:], labels[512:])

    for name, report in ("before", before), ("after", after):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return before, after


if __name__ == "__main__":
    main()
