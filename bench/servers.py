#!/usr/bin/env python3
"""Plays real episodes on llama.cpp's servers and on our engine, with the same
weights, and compares them.

    bench/servers.py [--questions N] [--threads N] [--gguf FILE]

The servers are llama-server, which takes and gives token ids, and the one of
llama-cpp-python, which takes and gives text. Both are compiled from the source
of PyPI's llama-cpp-python; FORAGER_BENCH_LLAMA_SERVER names a llama-server that
is there already. Each side plays the same questions of the built-in tasks
greedily, through "forager eval". Prints how many episodes came out the same to
the letter, and the scores.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

import compare

TEMPLATE = """Answer questions with a search tool. Write one query as <search>query</search> and stop. Then passages come \
back. When you know the answer, write <answer>answer</answer>. Write nothing else.

For the question "What is the capital of the country where Lake Titicaca is?" you would write
<search>Lake Titicaca</search>
and after the passage
<answer>La Paz</answer>

Question: {question}
Write your first query now, as <search>query</search>.
"""


def llama_server():
    """The path of llama-server, compiled if need be."""
    there = os.environ.get("FORAGER_BENCH_LLAMA_SERVER")
    if there:
        return there
    folder = compare.BENCH / ".venv" / "llama-server"
    binary = folder / "build" / "bin" / "llama-server"
    if not binary.exists():
        compare.say(f"compiling llama-server in {folder}, which takes a while")
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run(pip + ["-d", folder, "llama-cpp-python"], check=True)
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as source:
            source.extractall(folder)
        vendored = next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
        options = ["LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF"]
        configure = ["cmake", "-S", vendored, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"]
        subprocess.run(configure + ["-D" + o for o in options], check=True)
        subprocess.run(["cmake", "--build", folder / "build", "-t", "llama-server", "-j", str(os.cpu_count())], check=True)
    return binary


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(command, log):
    """Runs a server until it answers, gives its address, and ends it."""
    port = free_port()
    with open(log, "w") as out:
        process = subprocess.Popen([str(w) for w in command] + ["--port", str(port)], stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not come up: see {log}")
            try:
                with urllib.request.urlopen(address + "/v1/models", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def episodes(forager, gguf, questions, out, *settings):
    """Plays, and gives the report and each episode as text."""
    template = Path(out).with_suffix(".txt")
    template.write_text(TEMPLATE)
    command = [forager, "eval", "--policy", gguf, "--limit", questions, "--json", "--save", out]
    common = [f"episode.template={template}", "episode.max_tokens=1024", "episode.max_action_tokens=48", "episode.max_turns=2"]
    for setting in [*common, *settings]:
        command += ["--set", setting]
    begun = time.monotonic()
    done = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, check=True, text=True)
    seconds = time.monotonic() - begun
    texts = []
    for i in range(questions):
        show = [forager, "rollouts", "show", "--file", out, "--policy", gguf, "--index", i, "--color", "never"]
        texts.append(subprocess.run([str(w) for w in show], stdout=subprocess.PIPE, check=True, text=True).stdout)
    return json.loads(done.stdout), texts, seconds


def actions(text):
    """What the policy did and saw, without the head of the listing."""
    return [line for line in text[text.index("\nprompt"):].splitlines() if " ms" not in line and not line.startswith("turn ")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gguf", help="weights that all sides read; the default is SmolLM2-135M-Instruct in float32")
    args = parser.parse_args()
    python = compare.environment("llamacpp", ["llama-cpp-python[server]", "numpy"], {"CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    gguf = args.gguf or compare.smollm2(python, "f32")
    rows = []
    with tempfile.TemporaryDirectory(prefix="forager-servers-") as temp:
        forager = Path(temp) / "forager"
        subprocess.run(["go", "build", "-o", forager, "./cmd/forager"], cwd=compare.ROOT, check=True)

        def play(name, *settings):
            return episodes(forager, gguf, args.questions, Path(temp) / (name + ".arrow"), *settings)

        reference, own, seconds = play("native")

        def add(name, kind, report, texts, seconds):
            same = sum(actions(a) == actions(b) for a, b in zip(own, texts))
            metrics = report["overall"]["metrics"]
            row = [f'{metrics[m]["mean"]:.3f}' for m in ("em", "f1", "searches", "policy_tokens")]
            rows.append([name, kind, f"{same} of {len(texts)}", *row, f"{seconds:.0f}"])

        add("engine of this process", "-", reference, own, seconds)
        server = [llama_server(), "-m", gguf, "--host", "127.0.0.1", "-c", "8192", "-np", "4", "-t", args.threads, "-tb", args.threads]
        with serving(server, Path(temp) / "llama-server.log") as address:
            add("llama-server", "llamacpp", *play("llamacpp", f"policy.remote.urls={address}", "policy.remote.max_in_flight=4"))
        server = [python, "-m", "llama_cpp.server", "--model", gguf, "--host", "127.0.0.1", "--n_ctx", "2048"]
        server += ["--n_threads", args.threads, "--n_threads_batch", args.threads]
        with serving(server, Path(temp) / "llama-cpp-python.log") as address:
            extra = "policy.remote.extra={repeat_penalty: 1, min_p: 0, top_k: 0}"
            add("llama-cpp-python", "openai", *play("openai", f"policy.remote.urls={address}", "policy.remote.max_in_flight=1", extra))
    print(f"{compare.machine()}, {args.questions} questions of the built-in tasks, greedy\n")
    compare.table(["side", "kind", "same episodes", "EM", "F1", "searches", "policy tokens", "seconds"], rows)


if __name__ == "__main__":
    main()
