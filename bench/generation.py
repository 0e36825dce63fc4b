#!/usr/bin/env python3
"""Times generation of policy/lm against llama.cpp on the same weights, and a
group of samples with and without sharing their prompt.

    bench/generation.py [--rounds N] [--threads N] [--ours float32 bfloat16] [--theirs f32 f16]

Settings of llama.cpp are tried first for every case (flash attention, size of
the physical batch, one KV cache or one a sequence); the fastest then run in
turn with ours. Ours samples and gives log-probabilities; llama.cpp is timed
without sampling.
"""

import argparse
import contextlib

import compare

NATIVE = {"CMAKE_ARGS": "-DGGML_NATIVE=ON"}

# What is timed, and the settings of llama.cpp that are tried for it.
CASES = {
    "prefill 512": (
        dict(case="prefill", batch=1, prompt=512),
        [dict(flash=f, ubatch=u) for f in (True, False) for u in (128, 256, 512)],
    ),
    "decode, batch 1": (
        dict(case="decode", batch=1, prompt=128, new=64),
        [dict(flash=True), dict(flash=False)],
    ),
    "decode, batch 16": (
        dict(case="decode", batch=16, prompt=128, new=64),
        [dict(flash=f, unified=u) for f in (True, False) for u in (True, False)],
    ),
}
GROUP = dict(case="group", batch=8, prompt=1000, new=64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", nargs="+", default=["float32", "bfloat16"], help="formats of our engine's weights")
    parser.add_argument("--theirs", nargs="+", default=["f32", "f16"], help="types of the GGUF that llama.cpp runs")
    args = parser.parse_args()
    python = compare.environment("llamacpp", ["llama-cpp-python[server]", "numpy"], NATIVE)
    ours = compare.native()
    files = {kind: compare.smollm2(python, kind) for kind in {"f32", *args.theirs}}

    with contextlib.ExitStack() as stack:
        mine, theirs = {}, {}
        for weights in args.ours:
            command = [ours, "generation", "-model", files["f32"], "-weights", weights, "-threads", args.threads]
            mine[weights] = stack.enter_context(compare.Side(f"forager {weights}", command, args.threads))
        for kind in args.theirs:
            command = [python, compare.BENCH / "peers" / "llamacpp.py", "serve", files[kind], args.threads]
            theirs[kind] = stack.enter_context(compare.Side(f"llama.cpp {kind}", command, args.threads))
        versions = theirs[args.theirs[0]].run(case="versions")

        rows, tried = [], []
        for name, (case, choices) in CASES.items():
            best = {}
            for kind, side in theirs.items():
                compare.say(f"{name}: settings of {side.name}")
                speeds = []
                for s in choices:
                    side.run(**case, **s)
                    speeds.append(max(side.run(**case, **s, seed=i)["speed"] for i in range(2)))
                    tried.append([name, kind, ", ".join(f"{k} {v}" for k, v in s.items()), f"{speeds[-1]:.0f}"])
                best[kind] = choices[speeds.index(max(speeds))]
            for side in mine.values():
                side.run(**case)
            speeds = {side.name: [] for side in (*mine.values(), *theirs.values())}
            turns = [(side, {}) for side in mine.values()] + [(side, best[kind]) for kind, side in theirs.items()]
            for i in range(args.rounds):
                compare.say(f"{name}: round {i + 1} of {args.rounds}")
                for side, settings in turns if i % 2 == 0 else reversed(turns):
                    speeds[side.name].append(side.run(**case, **settings, seed=10 + i)["speed"])
            for a in mine.values():
                for b in theirs.values():
                    x, y = speeds[a.name], speeds[b.name]
                    ratios = [p / q for p, q in zip(x, y)]
                    rows.append([name, a.name, compare.spread(x, ".0f"), b.name, compare.spread(y, ".0f"), compare.spread(ratios, ".2f")])

        group = []
        for side in mine.values():
            compare.say(f"group: {side.name}")
            runs = [[side.run(**GROUP, shared=shared, seed=i)["speed"] for shared in (True, False)] for i in range(args.rounds)]
            shared, alone = zip(*runs)
            ratios = [p / q for p, q in runs]
            group.append([side.name, compare.spread(shared, ".0f"), compare.spread(alone, ".0f"), compare.spread(ratios, ".2f")])

    print(f"Generation, SmolLM2-135M, {args.threads} threads, {args.rounds} rounds in turn. {compare.machine()}, {versions['versions']}.\n")
    compare.table(["case", "ours", "tokens/s", "peer", "tokens/s", "ratio"], rows)
    print(f"A group of {GROUP['batch']} with a prompt of {GROUP['prompt']} tokens, {GROUP['new']} new tokens each:\n")
    compare.table(["ours", "one prompt, tokens/s", "different prompts, tokens/s", "ratio"], group)
    print(f"What was tried of llama.cpp (best of two; {versions['system']}):\n")
    compare.table(["case", "weights", "settings", "tokens/s"], tried)


if __name__ == "__main__":
    main()
