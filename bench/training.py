#!/usr/bin/env python3
"""Times full training steps of policy/lm against PyTorch: forward, backward,
clipping and AdamW, float32, the same shapes and the same threads.

    bench/training.py [--rounds N] [--threads N] [--shapes 5m smollm2]

Every variant of the peer is tried first (see bench/peers/pytorch.py); the
fastest then runs in turn with ours. Every side is a process of its own, so that
its largest resident set is its own.
"""

import argparse

import compare

PACKAGES = ["torch", "transformers", "numpy", "setuptools"]
VARIANTS = [
    "lean", "lean-heap", "lean-chunked", "lean-compiled", "lean-compiled-chunked", "lean-autotuned",
    "transformers", "transformers-heap", "transformers-compiled",
]

# What "-heap" adds: large tensors stay in glibc's heap instead of being mapped,
# faulted in and unmapped again and again.
HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}

# Sequences, tokens of each, and optimiser steps of one measurement.
SHAPES = {"5m": (8, 256, 4), "smollm2": (4, 512, 1)}


def measure(side, steps, seed):
    return side.run(case="train", steps=steps, seed=seed)


def gigabytes(size):
    return f"{size / 1e9:.2f} GB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    args = parser.parse_args()
    python = compare.environment("pytorch", PACKAGES)
    ours = compare.native()

    def forager(shape, batch, length):
        command = [ours, "training", "-shape", shape, "-batch", batch, "-length", length, "-threads", args.threads]
        return compare.Side("forager", command, args.threads)

    def pytorch(variant, shape, batch, length):
        command = [python, compare.BENCH / "peers" / "pytorch.py", variant, shape, batch, length, args.threads]
        return compare.Side(variant, command, args.threads, **(HEAP if "heap" in variant.split("-") else {}))

    tried, rows, versions = [], [], ""
    for shape in args.shapes:
        batch, length, steps = SHAPES[shape]
        name = f"{shape}, {batch}×{length}"
        speeds = {}
        for variant in args.variants:
            compare.say(f"{name}: trying {variant}")
            with pytorch(variant, shape, batch, length) as side:
                versions = side.run(case="versions")["versions"]
                measure(side, 1, 0)  # compiles
                results = [measure(side, steps, 1 + i) for i in range(3)]
            speeds[variant] = max(r["speed"] for r in results)
            tried.append([name, variant, f"{speeds[variant]:.0f}", gigabytes(results[-1]["peak_bytes"])])
        best = max(speeds, key=speeds.get)
        with forager(shape, batch, length) as a, pytorch(best, shape, batch, length) as b:
            for side in (a, b):
                measure(side, 1, 0)
            results = {a: [], b: []}
            for i in range(args.rounds):
                compare.say(f"{name}: round {i + 1} of {args.rounds}")
                for side in (a, b) if i % 2 == 0 else (b, a):
                    results[side].append(measure(side, steps, i))
        mine, theirs = ([r["speed"] for r in results[side]] for side in (a, b))
        memory = [results[side][-1]["peak_bytes"] for side in (a, b)]
        rows.append([
            name, compare.spread(mine, ".0f"), best, compare.spread(theirs, ".0f"),
            compare.spread([x / y for x, y in zip(mine, theirs)], ".2f"),
            gigabytes(memory[0]), gigabytes(memory[1]), f"{memory[0] / memory[1]:.2f}",
        ])
    print(f"Training, {args.threads} threads, {args.rounds} rounds in turn. {compare.machine()}, {versions}.\n")
    compare.table(
        ["model and batch", "forager, tokens/s", "PyTorch variant", "PyTorch, tokens/s", "ratio", "peak memory", "PyTorch's", "ratio"],
        rows,
    )
    print("What was tried of PyTorch (best of three):\n")
    compare.table(["model and batch", "variant", "tokens/s", "peak memory"], tried)


if __name__ == "__main__":
    main()
