"""One step of training in words and numbers: `python scripts/walkthrough.py [--check]` writes docs/xor_by_hand.md.

Exit codes: 0 written, or with --check as the code says · 1 stale · 2 a bad config, told in one message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import console
from pipeline.settings import compose

if TYPE_CHECKING:
    import numpy as np

    from pipeline.engines.scratch.walkthrough import Step

EXPERIMENT = "xor_by_hand"
PAGE = Path(__file__).resolve().parents[1] / "docs" / f"{EXPERIMENT}.md"
AGREE = 1e-7  # relative errors below this are rounding, which differs from machine to machine
X, Z, H = (["x₁", "x₂"], ["z₁", "z₂"], ["h₁", "h₂"])
FIRST, HIDDEN, LAST = "1", "2", "3"  # names of the layers; 0 flattens the rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=f"Write {PAGE.name} from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is stale")
    asked = parser.parse_args(arguments)
    text = page()
    if not asked.check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name} is stale: run `python scripts/walkthrough.py` and commit it.", file=sys.stderr)
        raise SystemExit(1)


def page() -> str:
    """The walk-through as Markdown."""
    from pipeline.engines.scratch.walkthrough import take_step

    step = take_step(compose([f"experiment={EXPERIMENT}"]))
    chapters = (introduction, initial, forward, backward, differences, update)
    return "\n\n".join(chapter(step) for chapter in chapters) + "\n"


def introduction(step: Step) -> str:
    return f"""<!-- Written by `python scripts/walkthrough.py`; do not edit. A test compares it with the code. -->

# One step of training, by hand

A 2-2-1 network takes its first step towards XOR, and here is every number of it. None is typed in: each comes from the
layers, the loss and the optimizer of [pipeline/engines/scratch](../pipeline/engines/scratch), which train with
`engine=numpy`. All {len(step.x)} rows make one batch, so their order does not matter. It is the network of the only
fold; the final network starts from other weights. Where such steps lead:

```bash
python scripts/train.py experiment={EXPERIMENT}
```"""


def initial(step: Step) -> str:
    rows = [(name, link, number(step.before[key].flat[place])) for name, link, key, place in entries(step.before)]
    return f"""## The network

| layer | | |
|---|---|---|
| {FIRST} | linear | z₁, z₂ = x W + b |
| {HIDDEN} | tanh | h₁, h₂ = tanh z₁, tanh z₂ |
| {LAST} | linear | z = h W + b, the logit |
| | logistic | p = σ(z) = 1 / (1 + e⁻ᶻ), the probability of class 1 |
| | loss | L = mean over the rows of l, where l = -(y log p + (1 - y) log (1 - p)) |

Names and shapes are those of torch: `weight[to, from]`, `bias[to]`, counted from 0; layer 0 flattens the rows. The
weights are what the initializer (Xavier) drew; biases start at 0.

{table(["parameter", "from → to", "value"], rows)}"""


def forward(step: Step) -> str:
    first, hidden, last = (step.outputs[name] for name in (FIRST, HIDDEN, LAST))
    weight, bias = step.before[f"{FIRST}.weight"][0], step.before[f"{FIRST}.bias"][0]
    terms = total([*zip(step.x[-1], weight, strict=True), (1, bias)])
    logistic = rows_of(step.y[:, None], last, step.p[:, None], step.row_losses[:, None])
    return f"""## Forward

**Layer {FIRST}.** z = x W + b. Row 4, unit 1: z₁ = {terms} = {number(first[-1, 0])}.

{table(["row", *X, *Z], rows_of(step.x, first))}

**Layer {HIDDEN}.** h = tanh z, element by element.

{table(["row", *H], rows_of(hidden))}

**Layer {LAST} and the loss.** z = h W + b, p = σ(z), and l for every row.

{table(["row", "y", "z", "p", "l"], logistic)}

Their mean is the loss, L = **{number(step.loss)}**. (Who knows nothing answers p = 1/2 and pays log 2 = 0.693147.)"""


def backward(step: Step) -> str:
    by_first, by_hidden, by_logit = (step.derivatives[name] for name in (FIRST, HIDDEN, LAST))
    slope = by_first / by_hidden
    terms = total(zip(step.outputs[HIDDEN][:, 0], by_logit[:, 0], strict=True))
    return f"""## Backward

The chain rule, from the loss to the first layer. dv stands for ∂L/∂v.

**Loss.** ∂l/∂p · ∂p/∂z = p - y, and each row is a quarter of the mean: dz = (p - y) / {len(step.x)}.

{table(["row", "p - y", "dz"], rows_of((step.p - step.y)[:, None], by_logit))}

**Layer {LAST}.** dW = hᵀ dz, db = Σ dz over the rows, dh = dz Wᵀ.
For h₁ → z: {terms} = {number(step.gradients[f"{LAST}.weight"][0, 0])}.

{gradients(step, LAST)}

{table(["row", *(f"d{name}" for name in H)], rows_of(by_hidden))}

**Layer {HIDDEN}.** dz = dh · tanh′ z, where tanh′ = 1 - tanh².

{table(["row", *(f"tanh′ {name}" for name in Z), *(f"d{name}" for name in Z)], rows_of(slope, by_first))}

**Layer {FIRST}.** dW = xᵀ dz, db = Σ dz over the rows. Nobody needs dx.

{gradients(step, FIRST)}"""


def differences(step: Step) -> str:
    rows = []
    for name, _, key, place in entries(step.gradients):
        ours, measured = step.gradients[key].flat[place], step.differences[key].flat[place]
        error = abs(ours - measured) / max(abs(ours), abs(measured))
        rows.append((name, number(ours), number(measured), f"{error:.0e}" if error >= AGREE else f"< {AGREE:.0e}"))
    return f"""## The same without the chain rule

Move one parameter by ±h = 10⁻⁵ and see what the loss does: (L(w + h) - L(w - h)) / 2h. `python scripts/gradcheck.py`
asks this of any configuration.

{table(["parameter", "chain rule", "difference", "relative error"], rows)}"""


def update(step: Step) -> str:
    columns = (step.before, step.gradients, step.after)
    rows = [
        (name, *(number(arrays[key].flat[place]) for arrays in columns)) for name, _, key, place in entries(step.before)
    ]
    return f"""## The step

Gradient descent: w ← w - η dw with η = {step.rate:g}.

{table(["parameter", "w", "dw", "new w"], rows)}

On the same rows the loss is now **{number(step.loss_after)}**; it was {number(step.loss)}."""


def gradients(step: Step, layer: str) -> str:
    """The table of one layer's derivatives."""
    found = {key: array for key, array in step.gradients.items() if key.startswith(f"{layer}.")}
    rows = [(name, link, number(found[key].flat[place])) for name, link, key, place in entries(found)]
    return table(["parameter", "from → to", "derivative"], rows)


def entries(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, str, int]]:
    """(name, what it links, key, place in the flattened array) of every number; the bias is the link from 1."""
    ends = {FIRST: (X, Z), LAST: (H, ["z"])}
    for key, array in arrays.items():
        sources, targets = ends[key.partition(".")[0]]
        for place in range(array.size):
            target, source = divmod(place, len(sources)) if array.ndim == 2 else (place, None)
            index = f"{target}" if source is None else f"{target}, {source}"
            yield f"`{key}[{index}]`", f"{'1' if source is None else sources[source]} → {targets[target]}", key, place


def rows_of(*columns: np.ndarray) -> list[list[str]]:
    """Matrices side by side, a line per row of data, counted from 1."""
    lines = zip(*columns, strict=True)
    return [[str(count), *(number(value) for part in line for value in part)] for count, line in enumerate(lines, 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Numbers to the right, names to the left."""
    left = ("parameter", "from → to")
    ruler = ["---" if name in left else "---:" for name in head]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def total(products: Iterable[tuple[float, float]]) -> str:
    """A sum of products, spelled out."""
    pairs = [[f"({number(one)})" if one < 0 else number(one) for one in pair] for pair in products]
    return " + ".join(" · ".join(pair) for pair in pairs)


def number(value: float) -> str:
    """Six digits after the point; whole numbers as they are, and no minus before a zero."""
    text = f"{value:.6f}"
    return f"{float(text) + 0.0:.0f}" if float(text).is_integer() else text


if __name__ == "__main__":
    console.leave(console.exit_code(lambda: main(sys.argv[1:])))
