"""Deep Defense in a plain PyTorch training loop: one more term in the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import deepdefense as dd


def blobs(size: int) -> tuple[Tensor, Tensor]:
    """Examples of four classes, each a Gaussian about a corner of its own."""
    labels = torch.randint(0, 4, (size,))
    return 3 * torch.eye(4, 20)[labels] + 0.7 * torch.randn(size, 20), labels


def main() -> tuple[dd.Report, dd.Report]:
    """The network's report after training as usual, and after fine-tuning with the penalty."""
    torch.manual_seed(0)
    x, y = blobs(512)
    test = blobs(256)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    before = dd.evaluate(model, *test)

    defense = dd.DeepDefense(c=2.0, steps=3)  # c * rho should be of order 1 to 6
    for _ in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y) + defense(model, x, y).mean()
        loss.backward()
        optimizer.step()
    after = dd.evaluate(model, *test)

    for name, report in (("before", before), ("after", after)):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return before, after


if __name__ == "__main__":
    main()
