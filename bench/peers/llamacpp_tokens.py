"""llama.cpp's tokenizer as a side of bench/tokens.py."""

import json
import sys

from llama_cpp import Llama

model = Llama(sys.argv[1], vocab_only=True, verbose=False)
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"ids": model.tokenize(text.encode(), add_bos=False, special=True)}))
