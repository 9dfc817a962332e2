"""Digests of what dhyan computes, to hold one version against another on the same machine.

    python tools/fingerprint.py [--demo DIR]

Trains four small models by the command line and prints the SHA-256 of their weights; with a folder that `dhyan demo`
wrote also those of what translate, evaluate, align and report say of its model. Two versions that compute the same
bits print the same lines. The dhyan of the Python that runs this is asked, and only by its commands.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

TRAININGS = {
    "gru, bahdanau": ["--cell", "gru", "--order", "bahdanau"],
    "gru, luong": ["--cell", "gru", "--order", "luong", "--attention", "general"],
    "lstm, bahdanau": ["--cell", "lstm", "--order", "bahdanau", "--layers", "2"],
    "lstm, luong, copy, layer norm, tied": [
        *("--cell", "lstm", "--order", "luong", "--copy", "--layer-norm", "--tie", "output"),
    ],
}
SMALL = ["--embedding", "16", "--hidden", "24", "--batch", "32", "--epochs", "2", "--seed", "5"]


def dhyan(*arguments: str, given: str | None = None) -> str:
    """What a command writes to standard output."""
    command = [sys.executable, "-m", "dhyan", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def write_pairs(path: Path, first: int, count: int) -> None:
    """Numbers in words of one language and in those of another: every target follows from its source."""
    ones = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    eins = ["null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun"]
    numbers = [str((7919 * (first + i)) % 100_003) for i in range(count)]
    lines = [" ".join(ones[int(d)] for d in n) + "\t" + " ".join(eins[int(d)] for d in n[::-1]) for n in numbers]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def weights_digest(path: Path) -> str:
    """Of names, shapes and bytes of all tensors, whatever stands beside them in the file."""
    found = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        found.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return found.hexdigest()


def trainings(folder: Path) -> dict[str, str]:
    """Name of a training -> digest of its weights."""
    train, valid = folder / "train.tsv", folder / "valid.tsv"
    write_pairs(train, 1, 600)
    write_pairs(valid, 601, 60)
    found = {}
    for name, options in TRAININGS.items():
        out = folder / hashlib.sha256(name.encode()).hexdigest()[:8]
        levels = ["--source-level", "word", "--target-level", "word"]
        dhyan("train", str(train), str(valid), "--out", str(out), *levels, *SMALL, *options)
        found[name] = weights_digest(out / "model.safetensors")
    return found


def outputs(demo: Path, folder: Path) -> dict[str, str]:
    """Command -> digest of what it says of the demo's model."""
    model, test, page = str(demo / "model"), demo / "test.tsv", folder / "page.html"
    pairs = [line.split("\t") for line in test.read_text(encoding="utf-8").splitlines()]
    sources = "\n".join(pair[0] for pair in pairs) + "\n"
    texts = {
        "translate": dhyan("translate", model, given=sources),
        "translate --beam 1": dhyan("translate", model, "--beam", "1", given=sources),
        "translate --jsonl": dhyan("translate", model, "--jsonl", given=sources),
        "evaluate --json": dhyan("evaluate", model, str(test), "--json"),
        "align": dhyan("align", model, str(test)),
    }
    dhyan("report", model, str(test), "--out", str(page))
    texts["report"] = page.read_text(encoding="utf-8")
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, metavar="DIR", help="what `dhyan demo --out DIR` wrote")
    options = parser.parse_args()
    print(dhyan("info").strip())
    with tempfile.TemporaryDirectory() as folder:
        found = trainings(Path(folder))
        if options.demo:
            found |= outputs(options.demo, Path(folder))
    for name, digest in found.items():
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main()
