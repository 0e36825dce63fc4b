#!/usr/bin/env python3
"""Compares the logits of policy/lm with those of llama.cpp and of PyTorch, on
SmolLM2-135M-Instruct and text of this repository.

    bench/agreement.py [--length N] [--skip-blas] [--skip-transformers]

llama.cpp runs the same quantised file with its BLAS backend, which multiplies
in float32 (needs OpenBLAS: Debian's libopenblas-dev and pkg-config); then
without, where it rounds the activations to 8 bits too; and then the file's
values as F32. PyTorch runs the folder that lm.Load of the file and Model.Save
make of it. The random models of policy/lm/testdata, of every architecture,
follow. Agreement is the share of positions whose most probable token is the
same, gaps are differences in the log-probability of the reference's most
probable token, and the margin is how much more probable the reference finds its
token where the two differ.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from random import Random

import compare

TEXTS = ["README.md", "docs/architecture.md", "docs/metrics.md"]
NATIVE = "-DGGML_NATIVE=ON"
FIXTURES = ["llama", "smollm", "qwen2", "qwen3"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=384, help="positions of each of three texts")
    parser.add_argument("--skip-blas", action="store_true", help="leave llama.cpp with BLAS out")
    parser.add_argument("--skip-transformers", action="store_true", help="leave PyTorch out")
    args = parser.parse_args()
    llama = compare.environment("llamacpp", ["llama-cpp-python[server]", "numpy"], {"CMAKE_ARGS": NATIVE})
    wide = compare.smollm2(llama, "f32")
    source = compare.smollm2_source()
    peer = compare.BENCH / "peers" / "logits.py"
    rows = []

    with tempfile.TemporaryDirectory(prefix="forager-bench-") as work:
        work = Path(work)

        def run(*words):
            return subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True).stdout

        def row(name, ours, theirs, positions=len(TEXTS) * args.length):
            r = json.loads(run(llama, peer, "compare", ours, theirs, positions))
            rows.append([
                name, r["positions"], f"{r['agreement']:.2%}", f"{r['mean_gap']:.2g}", f"{r['max_gap']:.2g}",
                f"{r['widest_margin']:.2g}", f"{r['max_logit_difference']:.2g}",
            ])

        ours = work / "logits"
        subprocess.run(["go", "build", "-o", ours, "./bench/logits"], cwd=compare.ROOT, check=True)
        tokens, mine, reference = work / "tokens.json", work / "mine.f32", work / "reference.f32"
        run(llama, peer, "tokenize", source, *(compare.ROOT / t for t in TEXTS), tokens, args.length)
        run(ours, "-model", source, "-tokens", tokens, "-out", mine, "-save", work / "folder")
        if not args.skip_blas:
            blas = compare.environment("llamacpp_blas", ["llama-cpp-python", "numpy"], {"CMAKE_ARGS": NATIVE + " -DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS"})
            run(blas, peer, "llamacpp", source, tokens, reference, "f32")
            row("llama.cpp with BLAS, same file", mine, reference)
        for name, path, cache in [("same file", source, "f16"), ("its values as F32", wide, "f32")]:
            run(llama, peer, "llamacpp", path, tokens, reference, cache)
            row(f"llama.cpp, {name}", mine, reference)
        if not args.skip_transformers:
            torch = compare.environment("pytorch", ["torch", "transformers", "numpy", "setuptools"])
            run(torch, peer, "transformers", work / "folder", tokens, reference)
            row("transformers, saved folder", mine, reference)
            run(ours, "-model", source, "-save", work / "half", "-bfloat16")
            run(ours, "-model", work / "half", "-tokens", tokens, "-out", mine)
            run(torch, peer, "transformers", work / "half", tokens, reference)
            row("transformers, saved in bfloat16, both read so", mine, reference)
        random = Random(1)
        tokens.write_text(json.dumps([[random.randrange(80) for _ in range(64)] for _ in range(2)]))
        for name in FIXTURES:
            path = compare.ROOT / "policy/lm/testdata" / name / "model.gguf"
            run(ours, "-model", path, "-tokens", tokens, "-out", mine)
            run(llama, peer, "llamacpp", path, tokens, reference, "f32")
            row(f"llama.cpp, random {name}", mine, reference, 128)
    print(compare.machine())
    print()
    compare.table(["reference", "positions", "same top token", "mean gap", "max gap", "widest margin", "max logit difference"], rows)


if __name__ == "__main__":
    main()
