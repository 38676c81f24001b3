"""The first steps: a chat of two turns, run once, streamed, and over a batch."""

import ramify as sgl


@sgl.function
def multi_turn_question(s, question_1, question_2):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(question_1)
    s += sgl.assistant(sgl.gen("answer_1", max_tokens=32))
    s += sgl.user(question_2)
    s += sgl.assistant(sgl.gen("answer_2", max_tokens=32))


def single():
    state = multi_turn_question.run(question_1="What is 3 + 4?", question_2="What is 2 + 2?")
    for message in state.messages():
        print(message["role"], ":", message["content"])
    print("\n-- answer_1 --\n", state["answer_1"])


def stream():
    state = multi_turn_question.run(
        question_1="What is 3 + 4?", question_2="What is 2 + 2?", temperature=0, stream=True
    )
    for out in state.text_iter():
        print(out, end="", flush=True)
    print()


def batch():
    states = multi_turn_question.run_batch(
        [
            {"question_1": "What is 3 + 4?", "question_2": "What is 2 + 2?"},
            {"question_1": "What is 1 + 1?", "question_2": "What is 5 + 4?"},
        ],
        temperature=0.1,
        progress_bar=True,
    )
    for state in states:
        print(state.messages())


if __name__ == "__main__":
    runtime = sgl.Runtime(model_path="tiny")
    sgl.set_default_backend(runtime)
    print("\n========== single ==========")
    single()
    print("\n========== stream ==========")
    stream()
    print("\n========== batch ==========")
    batch()
    runtime.shutdown()
