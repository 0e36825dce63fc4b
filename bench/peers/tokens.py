"""The tokenizers library as a side of bench/tokens.py."""

import json
import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"ids": tokenizer.encode(text, add_special_tokens=False).ids}))
