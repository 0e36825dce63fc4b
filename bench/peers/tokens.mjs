// npm @huggingface/tokenizers as a side of bench/tokens.py.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const file = process.argv[2];
const { Tokenizer } = createRequire(file)("@huggingface/tokenizers");
const read = (name) => JSON.parse(readFileSync(join(dirname(file), name), "utf8"));
const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
for await (const line of createInterface({ input: process.stdin })) {
  const { ids } = tokenizer.encode(JSON.parse(line).text, { add_special_tokens: false });
  console.log(JSON.stringify({ ids }));
}
