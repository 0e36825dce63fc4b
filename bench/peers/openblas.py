"""OpenBLAS's side of bench/matmul.py: numpy's float32 products, which its
wheels compute with OpenBLAS. Speaks the protocol of bench/native."""

import json
import sys
import time

import numpy

blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
if "openblas" not in blas["name"]:
    raise SystemExit(f"this numpy multiplies with {blas['name']}, not with OpenBLAS")
print(f"numpy {numpy.__version__} with OpenBLAS {blas['version']}", file=sys.stderr)

for line in sys.stdin:
    request = json.loads(line)
    m, n, k = request["m"], request["n"], request["k"]
    rng = numpy.random.default_rng(1)

    def fill(rows, columns):
        return rng.random((rows, columns), numpy.float32) - numpy.float32(0.5)

    c = numpy.empty((m, n), numpy.float32)
    # A transposed view costs nothing: numpy hands it to sgemm as such.
    a, b = {
        "MatMul": lambda: (fill(m, k), fill(k, n)),
        "MatMulTransB": lambda: (fill(m, k), fill(n, k).T),
        "MatMulTransA": lambda: (fill(k, m).T, fill(k, n)),
    }[request["case"]]()
    numpy.matmul(a, b, out=c)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < request["seconds"]:
        numpy.matmul(a, b, out=c)
        count += 1
    seconds = time.perf_counter() - start
    print(json.dumps({"gflops": 2 * m * n * k * count / seconds / 1e9}), flush=True)
