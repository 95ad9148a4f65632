"""PyTorch by hand, as people write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bench.competitors import RATE, Train
from bench.works import Work


def network(work: Work) -> nn.Sequential:
    """From rows of any shape to logits."""
    pairs = zip(work.sizes, work.sizes[1:], strict=False)
    parts = [part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())][:-1]
    return nn.Sequential(nn.Flatten(), *parts)


def criterion(work: Work) -> nn.Module:
    return nn.BCEWithLogitsLoss() if work.outputs == 1 else nn.CrossEntropyLoss()


def raw(work: Work) -> Train:
    """Rows in memory as floats and normalised beforehand, Adam as it comes, scored never."""
    x, y = (torch.from_numpy(array[: work.rows]).to(work.device) for array in work.table())
    target = y.float()[:, None] if work.outputs == 1 else y
    loss_of = criterion(work)

    def train() -> None:
        for _ in range(work.networks):
            model = network(work).to(work.device)
            optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
            for _ in range(work.epochs):
                for rows in torch.split(torch.randperm(len(x), device=work.device), work.batch):
                    optimizer.zero_grad()
                    loss_of(model(x[rows]), target[rows]).backward()
                    optimizer.step()

    return train


def tutorial(work: Work) -> Train:
    """`train` and `test` of PyTorch's quickstart tutorial: DataLoader, ToTensor, and a line printed now and then."""
    learnt, scored = (DataLoader(part, work.batch, shuffle=True) for part in datasets(work))
    loss_of = criterion(work)

    def train() -> None:
        for _ in range(work.networks):
            model = network(work).to(work.device)
            optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
            for epoch in range(work.epochs):
                print(f"Epoch {epoch + 1}\n-------------------------------")
                _train(learnt, model, loss_of, optimizer, work.device)
                _test(scored, model, loss_of, work.device)

    return train


def _train(
    loader: DataLoader[Any], model: nn.Module, loss_of: nn.Module, optimizer: torch.optim.Optimizer, device: str
) -> None:
    model.train()
    for batch, (x, y) in enumerate(loader):
        loss = loss_of(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 100 == 0:
            print(f"loss: {loss.item():>7f}  [{(batch + 1) * len(x):>5d}]")


def _test(loader: DataLoader[Any], model: nn.Module, loss_of: nn.Module, device: str) -> None:
    model.eval()
    total, correct = 0.0, 0.0
    with torch.no_grad():
        for x, y in loader:
            logits, target = model(x.to(device)), y.to(device)
            total += loss_of(logits, target).item()
            correct += (decided(logits) == target).type(torch.float).sum().item()
    print(f"Test Error: \n Accuracy: {correct:>0.1f}, Avg loss: {total / len(loader):>8f} \n")


def decided(logits: Tensor) -> Tensor:
    """The class of each row; of one logit, a column."""
    return logits.argmax(1) if logits.shape[1] > 1 else (logits > 0).float()


def datasets(work: Work) -> tuple[Dataset[Any], Dataset[Any]]:
    """Rows to learn and rows to score, as people hand them to a DataLoader."""
    if work.images:
        data = work.draw()
        parts = (slice(work.rows), slice(work.rows, None))
        return Images(data.inputs[parts[0]], data.targets[parts[0]]), Images(
            data.inputs[parts[1]], data.targets[parts[1]]
        )
    x, y = (torch.from_numpy(array) for array in work.table())
    target = y.float()[:, None] if work.outputs == 1 else y
    first, rest = slice(work.rows), slice(work.rows, None)
    return TensorDataset(x[first], target[first]), TensorDataset(x[rest], target[rest])


class Images(Dataset[tuple[Tensor, int]]):
    """What torchvision's MNIST and FashionMNIST do: one picture at a time, by Pillow and transforms."""

    def __init__(self, pictures: np.ndarray, targets: np.ndarray) -> None:
        from torchvision import transforms

        self._pictures, self._targets = torch.from_numpy(pictures), torch.from_numpy(targets)
        self._transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        picture = Image.fromarray(self._pictures[index].numpy())
        return self._transform(picture), int(self._targets[index])
