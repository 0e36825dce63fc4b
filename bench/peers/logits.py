"""The peers' sides of bench/agreement.py.

    logits.py tokenize MODEL.gguf TEXT... OUT.json LENGTH    one sequence of LENGTH tokens a text
    logits.py llamacpp MODEL.gguf IN.json OUT.f32 KV         logits of llama.cpp, KV cache "f16" or "f32"
    logits.py transformers DIR IN.json OUT.f32               logits of PyTorch in float32
    logits.py compare A.f32 B.f32 ROWS                       agreement as JSON, B being the reference

Files are those of bench/logits.
"""

import json
import sys

import numpy


def llamacpp_model(path, length=16, kv="f16"):
    import llama_cpp

    kind = {"f16": llama_cpp.GGML_TYPE_F16, "f32": llama_cpp.GGML_TYPE_F32}[kv]
    return llama_cpp.Llama(
        path, n_ctx=length, n_batch=length, n_ubatch=length, n_threads=2, n_threads_batch=2,
        logits_all=True, type_k=kind, type_v=kind, verbose=False,
    )


def tokenize(path, *rest):
    *texts, out, length = rest
    model = llamacpp_model(path)
    sequences = []
    for text in texts:
        with open(text, "rb") as f:
            ids = model.tokenize(f.read(), add_bos=False, special=False)
        if len(ids) < int(length):
            raise SystemExit(f"{text} has {len(ids)} tokens")
        sequences.append(ids[: int(length)])
    with open(out, "w") as f:
        json.dump(sequences, f)


def llamacpp(path, tokens, out, kv):
    with open(tokens) as f:
        sequences = json.load(f)
    model = llamacpp_model(path, max(map(len, sequences)), kv)
    with open(out, "wb") as f:
        for ids in sequences:
            model.reset()
            model.eval(ids)
            numpy.asarray(model.scores[: len(ids)], dtype="<f4").tofile(f)


def transformers(folder, tokens, out):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open(tokens) as f:
        sequences = json.load(f)
    with open(out, "wb") as f, torch.no_grad():
        for ids in sequences:
            model(torch.tensor([ids])).logits[0].numpy().astype("<f4").tofile(f)


def log_softmax(x):
    x = x.astype(numpy.float64)
    x = x - x.max(-1, keepdims=True)
    return x - numpy.log(numpy.exp(x).sum(-1, keepdims=True))


def compare(ours, theirs, rows):
    a, b = (numpy.fromfile(path, "<f4").reshape(int(rows), -1) for path in (ours, theirs))
    top_a, top_b = a.argmax(-1), b.argmax(-1)
    every = numpy.arange(len(a))
    agree = top_a == top_b
    gaps, margins = [], []
    for i in every:  # a row at a time: the vocabulary is large
        p, q = log_softmax(a[i]), log_softmax(b[i])
        gaps.append(abs(p[top_b[i]] - q[top_b[i]]))
        if not agree[i]:
            margins.append(q[top_b[i]] - q[top_a[i]])
    print(json.dumps({
        "positions": len(a), "agreement": float(agree.mean()),
        "mean_gap": float(numpy.mean(gaps)), "max_gap": float(numpy.max(gaps)),
        "max_logit_difference": float(abs(a - b).max()),
        "widest_margin": float(max(margins, default=0)),
    }))


if __name__ == "__main__":
    {f.__name__: f for f in (tokenize, llamacpp, transformers, compare)}[sys.argv[1]](*sys.argv[2:])
