"""The tokenizers library, with the chat templates of transformers, as a side of
bench/tokens.py."""

import json
import os
import sys

from tokenizers import Tokenizer

os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def render(request):
    """The text of a chat, or None where the template refuses it."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template(
            [request["messages"]], chat_template=request["template"], add_generation_prompt=request["generate"], **request["special"]
        )
    except TemplateError:
        return None
    return rendered[0]


tokenizer = Tokenizer.from_file(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    text = render(request) if "template" in request else request["text"]
    ids = None if text is None else tokenizer.encode(text, add_special_tokens=False).ids
    print(json.dumps({"ids": ids}), flush=True)
