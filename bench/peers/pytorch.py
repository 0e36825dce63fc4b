"""PyTorch's side of bench/training.py.

    pytorch.py VARIANT SHAPE BATCH LENGTH THREADS [--micro SEQUENCES]

VARIANT is a model, "transformers" (LlamaForCausalLM with sdpa attention) or
"lean" (written here: fused projections, sdpa, no framework around it), and how
it runs: nothing more, "-compiled" (torch.compile) or "-autotuned"
(torch.compile with max-autotune); lean also with "-chunked" (PyTorch's own
linear_cross_entropy in chunks, so that the logits never exist at once). Other
words of VARIANT are for the driver.
"""

import argparse
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {
    "5m": dict(vocab=4096, hidden=256, ffn=688, layers=6, heads=8, kv_heads=4, dim=32, theta=10000.0),
    "smollm2": dict(vocab=49152, hidden=576, ffn=1536, layers=30, heads=9, kv_heads=3, dim=64, theta=100000.0),
}


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.split = [s["heads"], s["kv_heads"], s["kv_heads"]]
        self.dim, self.ffn = s["dim"], s["ffn"]
        self.attn_norm = nn.RMSNorm(s["hidden"], eps=1e-5)
        self.qkv = nn.Linear(s["hidden"], sum(self.split) * s["dim"], bias=False)
        self.out = nn.Linear(s["heads"] * s["dim"], s["hidden"], bias=False)
        self.mlp_norm = nn.RMSNorm(s["hidden"], eps=1e-5)
        self.gate_up = nn.Linear(s["hidden"], 2 * s["ffn"], bias=False)
        self.down = nn.Linear(s["ffn"], s["hidden"], bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        heads = self.qkv(self.attn_norm(x)).view(batch, length, -1, self.dim).transpose(1, 2)
        q, k, v = heads.split(self.split, dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(a.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.mlp_norm(x)).split(self.ffn, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Lean(nn.Module):
    def __init__(self, s, length, chunked):
        super().__init__()
        self.chunked = chunked
        self.embed = nn.Embedding(s["vocab"], s["hidden"])
        self.layers = nn.ModuleList(Layer(s) for _ in range(s["layers"]))
        self.norm = nn.RMSNorm(s["hidden"], eps=1e-5)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        angle = torch.arange(length)[:, None] * s["theta"] ** (-torch.arange(0, s["dim"], 2) / s["dim"])
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens):
        """The mean loss of the next tokens."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        hidden, next_tokens = self.norm(x)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        chunks = nn.LinearCrossEntropyOptions() if self.chunked else None
        return F.linear_cross_entropy(hidden, self.embed.weight, next_tokens, options=chunks)


def transformers_model(s, length):
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=s["vocab"], hidden_size=s["hidden"], intermediate_size=s["ffn"], num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"], num_key_value_heads=s["kv_heads"], head_dim=s["dim"],
        rope_parameters={"rope_type": "default", "rope_theta": s["theta"]}, max_position_embeddings=length,
        tie_word_embeddings=True, use_cache=False, attn_implementation="sdpa",
    )
    model = transformers.LlamaForCausalLM(config).train()
    return model, lambda m: lambda tokens: m(input_ids=tokens, labels=tokens).loss


class Peer:
    def __init__(self, args):
        torch.manual_seed(1)
        shape = SHAPES[args.shape]
        name, *modes = args.variant.split("-")
        if name == "transformers":
            self.model, wrap = transformers_model(shape, args.length)
        else:
            self.model, wrap = Lean(shape, args.length, "chunked" in modes), lambda m: m
        runs = self.model
        if "compiled" in modes:
            runs = torch.compile(self.model)
        elif "autotuned" in modes:
            runs = torch.compile(self.model, mode="max-autotune")
        self.loss = wrap(runs)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
        )
        self.args, self.vocab = args, shape["vocab"]

    def run(self, case, steps=1, seed=0):
        if case == "versions":
            import transformers

            capability = torch.backends.cpu.get_cpu_capability()
            return {"versions": f"torch {torch.__version__} ({capability}), transformers {transformers.__version__}"}
        args = self.args
        torch.manual_seed(seed)
        tokens = torch.randint(self.vocab, (args.batch, args.length))
        parts = tokens.split(args.micro or args.batch)
        start = time.perf_counter()
        for _ in range(steps):
            total = 0.0
            for part in parts:
                loss = self.loss(part) / len(parts)
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return {"tokens": steps * tokens.numel(), "seconds": time.perf_counter() - start, "loss": total}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("batch", type=int)
    parser.add_argument("length", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--micro", type=int, help="sequences of one forward and backward pass")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    peer = Peer(args)
    for line in sys.stdin:
        result = peer.run(**json.loads(line))
        result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
