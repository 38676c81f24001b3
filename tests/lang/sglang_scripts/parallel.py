"""Samples in parallel, joined by variables; one program that expands the tips of another."""

import ramify as sgl


@sgl.function
def parallel_sample(s, question, n):
    s += "Question: What is 1 + 2?\nReasoning: I need to add 1 and 2.\nAnswer: 3\n\n"
    s += "Question: " + question + "\n"
    forks = s.fork(n)
    forks += "Reasoning:" + sgl.gen("reasoning", stop="\n", max_tokens=12) + "\n"
    forks += "Answer:" + sgl.gen("answer", stop="\n", max_tokens=6) + "\n"
    forks.join()


def expand_tips(s, tips):
    forks = s.fork(len(tips))
    for fork, tip in zip(forks, tips):
        fork += sgl.user(f"Say more on: {tip}") + sgl.assistant(sgl.gen("paragraph", max_tokens=12))
    return [fork["paragraph"] for fork in forks]


@sgl.function
def suggest_tips(s, topic):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(f"Give two tips for {topic}.")
    s += sgl.assistant("1." + sgl.gen("tip_1", stop="\n", max_tokens=8) + "\n2." + sgl.gen("tip_2", max_tokens=8))
    s["paragraphs"] = expand_tips(s, [s["tip_1"], s["tip_2"]])


if __name__ == "__main__":
    sgl.set_default_backend(sgl.Runtime(model_path="tiny"))
    state = parallel_sample.run(question="What is 5 + 4?", n=5, temperature=1.0)
    for i in range(5):
        print(f"[{i}]", state["reasoning"][i].strip(), "->", state["answer"][i].strip())
    print(len(suggest_tips.run(topic="staying fit")["paragraphs"]), "paragraphs")
