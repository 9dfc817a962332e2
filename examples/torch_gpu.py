"""Train a small PyTorch model whose attention is dhyan's: it learns to read a sequence backwards.

Runs on the GPU where PyTorch has one and dhyan was built with CUDA, else on the CPU. First it compares the gradients
with PyTorch's own for the same attention. Run: python examples/torch_gpu.py [--quick]
"""

import argparse
import sys
import time

try:
    import torch
except ImportError:
    print("this example needs PyTorch (pip install torch); nothing to show without it")
    sys.exit(0)

import dhyan.torch
from torch import nn

SYMBOLS, LENGTH, WIDTH = 12, 10, 64


class Additive(nn.Module):
    """Bahdanau's attention: softmax(w . tanh(W q + U m)) m, the middle part by dhyan or by PyTorch."""

    def __init__(self, width: int, by_dhyan: bool = True) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.w = nn.Parameter(torch.randn(width) * width**-0.5)
        self.by_dhyan = by_dhyan

    def forward(self, states: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        q, k = self.query(states), self.key(memory)
        if self.by_dhyan:
            return dhyan.torch.attention(q, k, memory, self.w, term="tanh")
        scores = torch.tanh(q[:, :, None] + k[:, None]) @ self.w  # all of B, T, S, H at once
        return torch.softmax(scores, -1) @ memory


class Reader(nn.Module):
    """An encoder, a position for every output, attention between them, and a guess at each symbol."""

    def __init__(self) -> None:
        super().__init__()
        self.symbol, self.position = nn.Embedding(SYMBOLS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.attention, self.guess = Additive(WIDTH), nn.Linear(WIDTH, SYMBOLS)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        places = self.position(torch.arange(LENGTH, device=source.device)).expand(len(source), -1, -1)
        return self.guess(self.attention(places.contiguous(), self.symbol(source) + places))


def compare(model: Reader, source: torch.Tensor) -> float:
    """The largest difference between the gradients of both attentions, over the largest gradient."""
    gradients = []
    for by_dhyan in (True, False):
        model.attention.by_dhyan = by_dhyan
        model.zero_grad()
        nn.functional.cross_entropy(model(source).transpose(1, 2), source.flip(1)).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    model.attention.by_dhyan = True
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in zip(*gradients, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that all runs")
    steps = 20 if parser.parse_args().quick else 400
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() and dhyan.show_config()["cuda_devices"] else "cpu"
    model = Reader().to(device)
    draw = lambda: torch.randint(SYMBOLS, (64, LENGTH), device=device)  # noqa: E731
    difference = compare(model, draw())
    print(f"on {device}: gradients agree with PyTorch's to {difference:.1e}")
    assert difference < 1e-4
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    begin, first = time.perf_counter(), 0.0
    for step in range(steps):
        source = draw()
        loss = nn.functional.cross_entropy(model(source).transpose(1, 2), source.flip(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or float(loss)
        if (step + 1) % max(steps // 5, 1) == 0:
            print(f"step {step + 1:4}  loss {float(loss):.3f}")
    assert float(loss) < first
    source = draw()
    right = (model(source).argmax(-1) == source.flip(1)).float().mean()
    print(f"{100 * right:.1f} % of symbols right after {steps} steps, {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
