// npm @huggingface/tokenizers as a side of bench/tokens.py.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const [file, modules] = process.argv.slice(2);
const { Tokenizer } = createRequire(join(modules, "package.json"))("@huggingface/tokenizers");
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const tokenizer = new Tokenizer(read(file), read(join(dirname(file), "tokenizer_config.json")));
for await (const line of createInterface({ input: process.stdin })) {
  const { ids } = tokenizer.encode(JSON.parse(line).text, { add_special_tokens: false });
  console.log(JSON.stringify({ ids }));
}
