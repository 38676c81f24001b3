"""One question with three ways to choose."""

import ramify as sgl


@sgl.function
def true_or_false(s, statement, method):
    s += "Determine whether the statement below is True, False, or Unknown.\n"
    s += "Statement: The capital of France is Pretoria.\nAnswer: False\n"
    s += f"Statement: {statement}\nAnswer:" + sgl.gen(
        "answer", choices=[" True", " False", " Unknown"], choices_method=method
    )


METHODS = [sgl.token_length_normalized, sgl.greedy_token_selection, sgl.unconditional_likelihood_normalized]

if __name__ == "__main__":
    engine = sgl.Engine(model_path="tiny")
    sgl.set_default_backend(engine)
    for method in METHODS:
        state = true_or_false.run("Ice is cold.", method)
        info = state.get_meta_info("answer")
        print(state["answer"].strip(), len(info["normalized_prompt_logprobs"]), len(info["input_token_logprobs"]))
    engine.shutdown()
