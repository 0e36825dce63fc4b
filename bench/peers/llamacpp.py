"""llama.cpp's side of bench/generation.py, through its C interface.

    llamacpp.py serve MODEL.gguf THREADS      requests on standard input
    llamacpp.py convert IN.gguf OUT.gguf f16  the same weights in another type

Nothing but llama_decode is timed: tokens are random, not sampled, as in
llama.cpp's own llama-bench and llama-batched-bench.
"""

import ctypes
import json
import random
import resource
import sys
import time

import llama_cpp as llama

QUIET = llama.llama_log_callback(lambda level, text, data: None)


class Context:
    """A context for up to batch sequences of length tokens, and one llama_batch."""

    def __init__(self, model, threads, batch, length, flash=True, ubatch=512, unified=False, kv="f16"):
        params = llama.llama_context_default_params()
        length = (length + 255) // 256 * 256
        params.n_seq_max = batch
        params.n_ctx = length * batch
        params.n_batch = max(length, batch)
        params.n_ubatch = ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified = unified
        params.type_k = params.type_v = llama.GGML_TYPE_F16 if kv == "f16" else llama.GGML_TYPE_F32
        self.context = llama.llama_init_from_model(model, params)
        if not self.context:
            raise SystemExit("llama_init_from_model failed")
        self.batch = llama.llama_batch_init(params.n_batch, 0, 1)

    def clear(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def decode(self, rows):
        """Processes rows of (token, position, sequence, wants logits)."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, position, sequence, output) in enumerate(rows):
            b.token[i], b.pos[i], b.logits[i] = token, position, output
            b.n_seq_id[i], b.seq_id[i][0] = 1, sequence
        status = llama.llama_decode(self.context, b)
        if status:
            raise SystemExit(f"llama_decode returned {status}")
        llama.llama_synchronize(self.context)


class Peer:
    def __init__(self, path, threads):
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"cannot load {path}")
        self.threads = threads
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.contexts = {}

    def run(self, case, batch=1, prompt=0, new=0, seed=0, **settings):
        if case == "versions":
            info = llama.llama_print_system_info().decode().strip()
            return {"versions": f"llama-cpp-python {llama.__version__}", "system": info}
        key = (batch, prompt + new + 1, *sorted(settings.items()))
        if key not in self.contexts:
            self.contexts[key] = Context(self.model, self.threads, batch, prompt + new + 1, **settings)
        c = self.contexts[key]
        draw = random.Random(seed)
        prompts = [[draw.randrange(self.vocab) for _ in range(prompt)] for _ in range(batch)]
        c.clear()
        start = time.perf_counter()
        for s, tokens in enumerate(prompts):
            c.decode([(t, i, s, i + 1 == prompt) for i, t in enumerate(tokens)])
        if case == "prefill":
            return {"tokens": batch * prompt, "seconds": time.perf_counter() - start}
        steps = [[(draw.randrange(self.vocab), prompt + i, s, True) for s in range(batch)] for i in range(new)]
        start = time.perf_counter()
        for rows in steps:
            c.decode(rows)
        return {"tokens": batch * new, "seconds": time.perf_counter() - start}


def convert(source, target, kind):
    params = llama.llama_model_quantize_default_params()
    params.ftype = {"f32": llama.LLAMA_FTYPE_ALL_F32, "f16": llama.LLAMA_FTYPE_MOSTLY_F16}[kind]
    params.allow_requantize = True
    if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise SystemExit(f"cannot convert {source}")


def main():
    llama.llama_log_set(QUIET, None)
    llama.llama_backend_init()
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
        return
    peer = Peer(sys.argv[2], int(sys.argv[3]))
    for line in sys.stdin:
        result = peer.run(**json.loads(line))
        result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
