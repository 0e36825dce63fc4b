#!/usr/bin/env python3
"""Reads the rollouts of a run with pyarrow: over Arrow Flight, and from the files
of its archive. Both must be the same rows.

    bench/flight.py [--steps N] [--repeats N]

Trains so many steps first, then serves the run with "forager nats", "cluster" and
"replay", and reads in turn. Prints rollouts a second and the ratio.
"""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import compare

READER = r"""
import json, sys, time
from pathlib import Path
import pyarrow as pa, pyarrow.flight, pyarrow.ipc
address, folder, repeats = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
client = pa.flight.connect(address)

def over_flight():
    info = client.get_flight_info(pa.flight.FlightDescriptor.for_path("archive"))
    return client.do_get(info.endpoints[0].ticket).read_all()

def from_files():
    return pa.concat_tables(pa.ipc.open_file(f).read_all() for f in sorted(folder.glob("*.arrow")))

def timed(read):
    started = time.perf_counter()
    table = read()
    return table, time.perf_counter() - started

rows, seconds = None, {"flight": [], "files": []}
for _ in range(repeats):
    flight, a = timed(over_flight)
    files, b = timed(from_files)
    assert flight.num_rows > 0 and flight.equals(files), "Flight and files differ"
    rows, size = flight.num_rows, flight.nbytes
    seconds["flight"].append(a)
    seconds["files"].append(b)
flight.slice(0, 500).to_pylist()  # every value has a form in Python, without pandas
part = pa.flight.FlightDescriptor.for_command(json.dumps({"flight": "archive", "from": 10}).encode())
later = client.do_get(client.get_flight_info(part).endpoints[0].ticket).read_all()
assert 0 < later.num_rows < rows and min(later["group"].to_pylist()) >= 10
waiting = client.do_get(pa.flight.Ticket(json.dumps({"flight": "replay"}).encode())).read_all()
assert waiting.schema.equals(flight.schema)
print(json.dumps({"version": pa.__version__, "rows": rows, "bytes": size, "waiting": waiting.num_rows, **seconds}))
"""


@contextlib.contextmanager
def role(binary, *words):
    """Runs a role and gives the iterator of the lines that it prints."""
    process = subprocess.Popen([binary, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield iter(process.stdout)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def find(lines, pattern):
    """What the first group of a pattern matches in the next lines."""
    for line in lines:
        found = re.search(pattern, line)
        if found:
            return found[1]
    raise SystemExit(f"a role ended without a line like {pattern}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    python = compare.environment("pyarrow", ["pyarrow"])
    with tempfile.TemporaryDirectory(prefix="forager-flight-") as temp:
        binary, root = str(Path(temp) / "forager"), str(Path(temp) / "runs")
        subprocess.run(["go", "build", "-o", binary, "./cmd/forager"], cwd=compare.ROOT, check=True)
        compare.say(f"training {args.steps} steps")
        own = ["--set", "run.root=" + root, "--set", "admin.listen="]
        subprocess.run([binary, "train", *own, "--set", "run.id=read", "--steps", str(args.steps), "--set", "eval.skip=true"], check=True, stdout=sys.stderr)
        own += ["--run", "read"]
        with contextlib.ExitStack() as stack:
            url = find(stack.enter_context(role(binary, "nats", *own, "--listen", "127.0.0.1:0")), r"(nats://\S+)")
            find(stack.enter_context(role(binary, "cluster", *own, "--nats", url)), r"(cluster ready)")
            lines = stack.enter_context(role(binary, "replay", *own, "--nats", url, "--set", "replay.flight.listen=127.0.0.1:0"))
            address = find(lines, r"(grpc\+tcp://\S+)")
            done = subprocess.run([python, "-c", READER, address, Path(root) / "read" / "rollouts", str(args.repeats)], check=True, stdout=subprocess.PIPE)
    r = json.loads(done.stdout)
    print(f"{compare.machine()}, pyarrow {r['version']}; {r['rows']:,} rollouts of {args.steps} steps, {r['bytes'] / 1e6:.1f} MB as Arrow\n")
    rate = lambda seconds: compare.spread([r["rows"] / s for s in seconds], ",.0f")
    ratio = compare.spread([f / s for s, f in zip(r["flight"], r["files"])], ".3f")
    compare.table(["", "rollouts/s: median (least–most)", "of the files'"], [["Flight", rate(r["flight"]), ratio], ["files", rate(r["files"]), ""]])


if __name__ == "__main__":
    main()
