package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/learner/grpo"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/remote"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/replay/flight"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/security"
	"github.com/forager-rl/forager/tracing"
)

// Config is every setting of a process. Each section belongs to one package.
type Config struct {
	Run     RunConfig           `mapstructure:"run"`
	Data    DataConfig          `mapstructure:"data"`
	Policy  PolicyConfig        `mapstructure:"policy"`
	Episode actor.EpisodeConfig `mapstructure:"episode"`
	Actor   ActorConfig         `mapstructure:"actor"`
	Search  SearchConfig        `mapstructure:"search"`
	Reward  reward.Config       `mapstructure:"reward"`
	Learner learner.Config      `mapstructure:"learner"`
	GRPO    grpo.Config         `mapstructure:"grpo"`
	Trainer lm.TrainerConfig    `mapstructure:"trainer"`
	Replay  ReplayConfig        `mapstructure:"replay"`
	Judge   rewardsrv.Config    `mapstructure:"judge"`
	Bus     bus.Config          `mapstructure:"bus"`
	Cluster cluster.Config      `mapstructure:"cluster"`
	Eval    EvalConfig          `mapstructure:"eval"`
	Admin   AdminConfig         `mapstructure:"admin"`

	Security security.Config `mapstructure:"security"`
	Tracing  tracing.Config  `mapstructure:"tracing"`
}

// RunConfig names a run.
type RunConfig struct {
	// ID is the name of the run, and of its folder; empty makes a new one.
	ID string `mapstructure:"id"`
	// Root is the folder that holds the run directories.
	Root string `mapstructure:"root"`
	// Seed fixes task order, rollout seeds and evaluation draws. It is any number.
	Seed uint64 `mapstructure:"seed"`
	// KeepCheckpoints is the number of newest checkpoints that are kept, at
	// least 1.
	KeepCheckpoints int `mapstructure:"keep_checkpoints"`
}

// DataConfig says what is searched and asked.
type DataConfig struct {
	// Tasks is a file of questions (JSONL or Parquet); empty means the built-in
	// world facts, which bring their own corpus.
	Tasks string `mapstructure:"tasks"`
	// EvalTasks is a file of held-out questions; empty takes the split of tasks
	// that eval.split names.
	EvalTasks string `mapstructure:"eval_tasks"`
	// Corpus is a file of passages (BEIR or Search-R1 JSONL, or a BEIR folder);
	// empty means the corpus of the built-in tasks.
	Corpus string `mapstructure:"corpus"`
	// EmptyCorpus searches nothing: the control that shows whether answers come
	// from memory.
	EmptyCorpus bool `mapstructure:"empty_corpus"`
}

// PolicyConfig says what is trained.
type PolicyConfig struct {
	// Path is a Hugging Face folder with config.json, model.safetensors and
	// tokenizer.json, or a .gguf file; empty means the built-in warm start. With
	// inference servers it is the model that they serve: actors need only its
	// tokenizer, the learner all of it.
	Path string `mapstructure:"path"`
	// ChatTemplate is the form of prompts: "auto" takes the one that comes with the
	// model, or none if it has none; "none" puts messages one after another; else it
	// is the path of a Jinja file.
	ChatTemplate string `mapstructure:"chat_template"`
	// Engine bounds the generation engine of each actor.
	Engine lm.EngineConfig `mapstructure:"engine"`
	// Remote names inference servers that play in place of engines.
	Remote remote.Config `mapstructure:"remote"`
}

// The values of ChatTemplate that are no paths.
const (
	TemplateAuto = "auto"
	TemplateNone = "none"
)

// isRemote says whether inference servers play the policy.
func (c PolicyConfig) isRemote() bool { return len(c.Remote.URLs) > 0 }

// validate reports settings that cannot work together, or nil.
func (c PolicyConfig) validate() error {
	if c.ChatTemplate == "" {
		return errors.New("chat_template is empty, want auto, none or the path of a file")
	}
	if c.isRemote() && c.Path == "" {
		return forager.WithHint(errors.New("inference servers are named, but not the tokenizer of their model"),
			"set policy.path to the folder or .gguf file of the model that they serve")
	}
	return nil
}

// validateTraining reports what stands against training, or nil.
func (c *Config) validateTraining() error {
	r := c.Policy.Remote
	switch {
	case !c.Policy.isRemote():
		return nil
	case r.Kind == remote.LlamaCpp || r.Kind == remote.OpenAI:
		return forager.WithHint(fmt.Errorf("policy.remote.kind is %s, whose servers keep their weights: %w", r.Kind, remote.ErrUnsuitable),
			"use it with \"forager eval\"; train with vllm, sglang or without policy.remote.urls")
	case r.Kind == remote.VLLM && c.Trainer.LoRA.Rank == 0:
		return forager.WithHint(fmt.Errorf("vLLM takes new weights as LoRA adapters alone: %w", remote.ErrUnsuitable), "set trainer.lora.rank, such as 16")
	case r.WeightsDir == "":
		return forager.WithHint(errors.New("the servers have no way to new weights"), "set policy.remote.weights_dir to a folder that learner and servers share")
	}
	return nil
}

// ActorConfig adds the number of actors to an actor's settings.
type ActorConfig struct {
	// Count is the number of actors in this process; 0 means one per core.
	Count int `mapstructure:"count"`
	// WeightsDir is a folder that the actor processes of a host share, such as a
	// volume of its containers: each policy version is fetched once for all of
	// them. Empty: every process fetches for itself.
	WeightsDir string `mapstructure:"weights_dir"`

	actor.Config `mapstructure:",squash"`
}

// ReplayConfig sets the table of groups and who else may read them.
type ReplayConfig struct {
	replay.Config `mapstructure:",squash"`

	// Flight serves what waits in replay, and what was learned from, to Arrow Flight clients.
	Flight flight.Config `mapstructure:"flight"`
}

// SearchConfig says how passages are found.
type SearchConfig struct {
	// Cache is the number of answers that an actor process remembers; 0 means none.
	Cache int `mapstructure:"cache"`
	// BM25 is the scoring of the embedded index.
	BM25 search.BM25Config `mapstructure:"bm25"`
	// Client says where the retriever is and bounds requests to it. An empty URL
	// means the run's own retrievers.
	Client search.ClientConfig `mapstructure:"client"`
	// Server is the retriever role's HTTP server.
	Server search.ServerConfig `mapstructure:"server"`
	// Advertise is where actors reach the retriever role, "host:port"; empty: where it
	// listens or, when that is every address, at the one that the bus sees.
	Advertise string `mapstructure:"advertise"`
}

// EvalConfig says how policies are compared before and after training.
type EvalConfig struct {
	// Split is the split that the report's table is made on: dev or test.
	Split string `mapstructure:"split"`
	// Limit bounds the number of questions, spread evenly over the split; 0
	// means all.
	Limit int `mapstructure:"limit"`
	// Temperature is that of evaluation episodes; 0 is greedy.
	Temperature float32 `mapstructure:"temperature"`
	// Skip leaves out the evaluation at the end of training.
	Skip bool `mapstructure:"skip"`
}

// AdminConfig is the HTTP server of a process: /metrics, /healthz, /status.
type AdminConfig struct {
	// Listen is host:port; port 0 picks a free one, empty turns the server off. Off
	// loopback it needs credentials, see security.dir.
	Listen string `mapstructure:"listen"`
	// StartTimeout bounds how long a role may take to get ready, and how long it
	// waits before for a bus that is not there yet.
	StartTimeout time.Duration `mapstructure:"start_timeout"`
	// StopTimeout bounds how long roles may take to stop.
	StopTimeout time.Duration `mapstructure:"stop_timeout"`
}

// DefaultConfig is the recipe of the built-in tasks on one machine.
func DefaultConfig() Config {
	c := Config{
		Run:     RunConfig{Root: "runs", Seed: 1, KeepCheckpoints: 3},
		Policy:  PolicyConfig{ChatTemplate: TemplateAuto, Engine: lm.DefaultEngineConfig(), Remote: remote.DefaultConfig()},
		Episode: actor.DefaultEpisodeConfig(),
		Actor:   ActorConfig{Config: actor.DefaultConfig()},
		Search: SearchConfig{
			Cache: 20000, BM25: search.DefaultBM25Config(), Client: search.DefaultClientConfig(), Server: search.DefaultServerConfig(),
		},
		Reward:  reward.DefaultConfig(),
		Learner: learner.DefaultConfig(),
		GRPO:    grpo.DefaultConfig(),
		Trainer: lm.DefaultTrainerConfig(),
		Replay:  ReplayConfig{Config: replay.DefaultConfig(), Flight: flight.DefaultConfig()},
		Judge:   rewardsrv.DefaultConfig(),
		Bus:     bus.DefaultConfig(),
		Cluster: cluster.DefaultConfig(),
		Eval:    EvalConfig{Split: string(forager.Test)},
		Admin:   AdminConfig{Listen: "127.0.0.1:0", StartTimeout: 60 * time.Second, StopTimeout: 30 * time.Second},
		Tracing: tracing.DefaultConfig(),
	}
	c.Search.BM25.TitleWeight = 4 // the built-in passages are found by their titles
	c.Search.Client.URL = ""
	c.Search.Server.Listen = anyPort // the roster tells where
	return c
}

// Validate reports every section that cannot work, by name.
func (c *Config) Validate() error {
	var errs []error
	check := func(section string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", section, err))
		}
	}
	check("policy", c.Policy.validate())
	check("policy.engine", c.Policy.Engine.Validate())
	check("policy.remote", c.Policy.Remote.Validate())
	check("episode", c.Episode.Validate())
	check("actor", c.Actor.Validate())
	check("search.bm25", c.Search.BM25.Validate())
	client := c.Search.Client
	if client.URL == "" {
		client.URL = search.DefaultClientConfig().URL
	}
	check("search.client", client.Validate())
	check("search.server", c.Search.Server.Validate())
	check("reward", c.Reward.Validate())
	check("learner", c.Learner.Validate())
	check("grpo", c.GRPO.Validate())
	check("trainer", c.Trainer.Validate())
	check("replay", c.Replay.Config.Validate())
	check("replay.flight", c.Replay.Flight.Validate())
	check("judge", c.Judge.Validate())
	check("reward.intrinsic", c.validateIntrinsic())
	transport := c.Bus
	transport.Run = "run" // known later
	transport.AllowPlain = c.Security.AllowPlain || c.Security.Dir != ""
	if transport.URL == "" {
		transport.StoreDir = "store"
	}
	check("bus", transport.Validate())
	check("cluster", c.Cluster.Validate())
	check("tracing", c.Tracing.Validate())
	if c.Run.Root == "" {
		check("run", errors.New("root is empty, name the folder for run directories"))
	}
	if c.Run.KeepCheckpoints < 1 {
		check("run", fmt.Errorf("keep_checkpoints is %d, want at least 1", c.Run.KeepCheckpoints))
	}
	if c.Actor.DrainTimeout >= c.Admin.StopTimeout {
		check("actor", fmt.Errorf("drain_timeout is %v, which admin.stop_timeout, %v, would cut short", c.Actor.DrainTimeout, c.Admin.StopTimeout))
	}
	if c.Actor.Count < 0 {
		check("actor", fmt.Errorf("count is %d, want 0 or more", c.Actor.Count))
	}
	switch forager.Split(c.Eval.Split) {
	case forager.Train, forager.Dev, forager.Test:
	default:
		check("eval", fmt.Errorf("split is %q, want train, dev or test", c.Eval.Split))
	}
	if c.Eval.Limit < 0 || c.Eval.Temperature < 0 {
		check("eval", errors.New("limit and temperature must be 0 or more"))
	}
	if c.Admin.StartTimeout <= 0 || c.Admin.StopTimeout <= 0 {
		check("admin", errors.New("start_timeout and stop_timeout must be more than 0"))
	}
	if (c.Data.Tasks == "") != (c.Data.Corpus == "") && !c.Data.EmptyCorpus {
		check("data", errors.New("tasks and corpus go together: give both, or neither for the built-in world facts"))
	}
	return errors.Join(errs...)
}

// trainer is the trainer's section with what others decide: how much fits into
// memory, and the seed of fresh adapters.
func (c *Config) trainer(seed uint64) lm.TrainerConfig {
	t := c.Trainer
	t.MicroBatchTokens, t.LoRA.Seed, t.Temperature = c.Learner.MicroBatchTokens, seed, 1
	return t
}

// validateIntrinsic reports an intrinsic source that nobody would give values, as
// far as the settings tell, or nil.
func (c *Config) validateIntrinsic() error {
	source := c.Reward.Intrinsic.Source
	kind := rewardmodel.Kind(source)
	model := kind == rewardmodel.Classification || kind == rewardmodel.Ranking
	switch {
	case source == "":
	case c.Judge.Judge == rewardsrv.JudgeNone:
		return forager.WithHint(fmt.Errorf("source is %s, and nobody judges", source), "set judge.judge to rule or llm")
	case model && c.Judge.RewardModel.Kind != kind:
		return forager.WithHint(fmt.Errorf("source is %s, and no such reward model is trained", kind),
			fmt.Sprintf("set judge.reward_model.kind to %s", kind))
	case !model && c.Judge.Judge == rewardsrv.JudgeRule && source != c.Judge.Source:
		return forager.WithHint(fmt.Errorf("source is %s, and the judge's labels are %s", source, c.Judge.Source),
			fmt.Sprintf("set reward.intrinsic.source to %s, or to %s or %s", c.Judge.Source, rewardmodel.Classification, rewardmodel.Ranking))
	}
	return nil
}

// digest identifies the settings that must not change within a run: what is
// asked, searched, rewarded and trained. Sizes, limits and addresses may.
func (c *Config) digest() string {
	data, err := json.Marshal([]any{c.Run.Seed, c.Data, c.Policy.Path, c.Policy.ChatTemplate, c.Episode, c.Search.BM25, c.Reward, c.GRPO, c.Learner.GroupSize, c.Trainer.LoRA})
	if err != nil {
		panic(err) // plain structs always encode
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
