// Package remote is a policy that runs on an inference server: vLLM, SGLang,
// llama.cpp's, or any that speaks OpenAI's completions. Open finds out what the
// servers are and whether they can do what is asked of them; a Generator then
// plays on them as on the native engine.
//
// Training needs three things that few servers give by default: the ids of the
// sampled tokens, their log-probabilities under the distribution they were
// sampled from, and certainty about the weights behind each of them. What a kind
// of server gives:
//
//	kind      token ids  log-probabilities                    new weights
//	vllm      yes        before or after temperature, a flag  one LoRA adapter a version
//	sglang    yes        after temperature                    LoRA adapters, or whole folders
//	llamacpp  yes        left out around stop strings         no: evaluation only
//	openai    no         no                                   no: evaluation only
//
// A server that cannot be trained with is refused at the start with ErrUnsuitable
// and the option that would change it, since wrong log-probabilities do not fail:
// they train on noise.
//
// HTTP is spoken with net/http. What matters here are the extensions of each
// server, on the way in and out, and retries, circuit breakers and fail-over
// across servers, none of which an OpenAI client carries.
package remote
