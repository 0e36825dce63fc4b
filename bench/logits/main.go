// Command logits is our side of bench/agreement.py: it loads a model, writes
// the logits of token sequences, and stores the model as a Hugging Face folder.
//
//	logits -model DIR_OR_GGUF [-tokens IN.json -out OUT.f32] [-save DIR [-bfloat16] [-shard-bytes N]]
//
// IN.json is a list of lists of token ids. OUT.f32 holds the logits of every
// position, [tokens of all sequences, vocabulary], as little-endian float32.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager/policy/gguf"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "logits:", err)
		os.Exit(1)
	}
}

func run() error {
	path := flag.String("model", "", "Hugging Face folder or GGUF file")
	tokens := flag.String("tokens", "", "file of token sequences")
	out := flag.String("out", "", "file that the logits are written to")
	save := flag.String("save", "", "folder that the model is written to")
	var options lm.SaveOptions
	flag.BoolVar(&options.BFloat16, "bfloat16", false, "write weights of the folder as bfloat16")
	flag.Int64Var(&options.ShardBytes, "shard-bytes", 0, "bound of a file of weights in the folder")
	threads := flag.Int("threads", 2, "cores to use")
	flag.Parse()
	model, err := lm.Load(*path)
	if err != nil {
		return err
	}
	if *save != "" {
		if err := store(model, *path, *save, options); err != nil {
			return err
		}
	}
	if *tokens == "" {
		return nil
	}
	return writeLogits(model, *tokens, *out, *threads)
}

// store writes a folder that transformers loads, with the tokenizer where the
// model came from a GGUF file.
func store(model *lm.Model, path, dir string, options lm.SaveOptions) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := model.SaveAs(dir, options); err != nil {
		return err
	}
	if filepath.Ext(path) != ".gguf" {
		return nil
	}
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	tables, err := f.Tokenizer()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	tok, err := tokenizer.FromGGUF(tokenizer.GGUF{
		Model: tables.Model, Pre: tables.Pre, Tokens: tables.Tokens, Types: tables.Types, Scores: tables.Scores, Merges: tables.Merges,
		BOS: tables.BOS, EOS: tables.EOS, Stop: []int32{tables.EOT}, AddBOS: tables.AddBOS, AddSpacePrefix: tables.AddSpacePrefix,
	})
	if err != nil {
		return err
	}
	config, err := tok.MarshalConfig()
	if err != nil {
		return err
	}
	return errors.Join(tok.Save(filepath.Join(dir, "tokenizer.json")), os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), config, 0o644))
}

func writeLogits(model *lm.Model, tokens, out string, threads int) error {
	data, err := os.ReadFile(tokens)
	if err != nil {
		return err
	}
	var sequences [][]int32
	if err := json.Unmarshal(data, &sequences); err != nil {
		return fmt.Errorf("%s: %w", tokens, err)
	}
	cfg := lm.DefaultTrainerConfig()
	cfg.Threads = threads
	trainer, err := lm.NewTrainer(model, cfg)
	if err != nil {
		return err
	}
	defer trainer.Close()
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(file, 1<<20)
	for i, sequence := range sequences {
		logits, err := trainer.Logits(sequence)
		if err == nil {
			err = binary.Write(buffered, binary.LittleEndian, logits)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("sequence %d: %w", i, err), file.Close())
		}
	}
	return errors.Join(buffered.Flush(), file.Close())
}
