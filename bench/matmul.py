"""Compares the float32 matrix products of policy/lm/kernel with OpenBLAS's.

    python3 bench/matmul.py [--threads 2] [--rounds 5] [--seconds 0.3] [--only TEXT]

Both sides run every product in turn, round after round; the table shows
GFLOP/s and our speed divided by OpenBLAS's: median (minimum to maximum).
"""

import argparse
import time
from pathlib import Path

from compare import BENCH, Side, environment, machine, native, say, spread, table


def training(name, rows, hidden, qkv, attention, intermediate, vocabulary, head_rows):
    """The products of one training step: of each weight matrix the forward
    pass, the gradient of its input, and its own gradient."""
    weights = [
        ("qkv", rows, qkv, hidden),
        ("out", rows, hidden, attention),
        ("gate, up", rows, 2 * intermediate, hidden),
        ("down", rows, hidden, intermediate),
        ("head", head_rows, vocabulary, hidden),
    ]
    for weight, m, n, k in weights:
        yield f"{name} {weight}", "MatMulTransB", m, n, k
        yield f"{name} {weight}", "MatMul", m, k, n
        yield f"{name} {weight}", "MatMulTransA", n, k, m


def best_kernels():
    """The environment in which OpenBLAS uses AVX-512 wherever the processor has
    it: on AMD's it would take its AVX2 kernels, which are slower."""
    try:
        wide = " avx512bw " in Path("/proc/cpuinfo").read_text()
    except OSError:
        wide = False
    return {"OPENBLAS_CORETYPE": "SKYLAKEX"} if wide else {}


CASES = [("claim", case, 512, 1536, 576) for case in ("MatMul", "MatMulTransB", "MatMulTransA")]
CASES += training("5M", 2048, 256, 512, 256, 688, 4096, 1024)
CASES += training("SmolLM2-135M", 2048, 576, 960, 576, 1536, 49152, 1024)
CASES += training("tiny", 4096, 128, 384, 128, 352, 704, 4096)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="per product, side and round")
    parser.add_argument("--only", default="", help="cases whose name or product contains this")
    args = parser.parse_args()

    cases = [case for case in CASES if args.only in f"{case[0]} {case[1]}"]
    python = environment("matmul", ["numpy"])
    command = [native(), "products", "-threads", args.threads]
    speeds = {(case, side): [] for case in cases for side in ("ours", "openblas")}
    with Side("ours", command, args.threads) as ours, \
            Side("openblas", [python, BENCH / "peers" / "openblas.py"], args.threads, **best_kernels()) as openblas:
        for turn in range(args.rounds):
            say(f"round {turn + 1} of {args.rounds}")
            for case in cases:
                request = dict(zip(("case", "m", "n", "k"), case[1:]), seconds=args.seconds)
                for side in (ours, openblas) if turn % 2 == 0 else (openblas, ours):
                    speeds[case, side.name].append(side.run(**request)["gflops"])
                    time.sleep(0.25)  # until the threads of this side sleep, too: OpenBLAS's look for work for 0.1 s
    rows = []
    for case in cases:
        mine, theirs = speeds[case, "ours"], speeds[case, "openblas"]
        ratios = [x / y for x, y in zip(mine, theirs)]
        rows.append((*case, spread(mine, ".0f"), spread(theirs, ".0f"), spread(ratios, ".2f")))
    print(f"{machine()}, {args.threads} threads\n")
    table(("matrix", "product", "m", "n", "k", "GFLOP/s", "OpenBLAS", "ratio"), rows)


if __name__ == "__main__":
    main()
