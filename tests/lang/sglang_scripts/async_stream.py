"""Streaming in asyncio: a variable, the whole text, and an engine."""

import asyncio

import ramify as sgl


@sgl.function
def multi_turn_question(s, question_1, question_2):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(question_1)
    s += sgl.assistant(sgl.gen("answer_1", max_tokens=16))
    s += sgl.user(question_2)
    s += sgl.assistant(sgl.gen("answer_2", max_tokens=16))


async def stream_variable():
    state = multi_turn_question.run("What is 3 + 4?", "What is 2 + 2?", temperature=0, stream=True)
    async for out in state.text_async_iter(var_name="answer_2"):
        print(out, end="", flush=True)
    print()


async def stream_with_facts():
    state = multi_turn_question.run("What is 3 + 4?", "What is 2 + 2?", temperature=0, stream=True)
    async for out, info in state.text_async_iter(var_name="answer_1", return_meta_data=True):
        print(repr(out), info["completion_tokens"])


async def stream_engine(engine):
    async for chunk in await engine.async_generate("What is 3", {"max_new_tokens": 4, "ignore_eos": True}, stream=True):
        print(repr(chunk["text"]))


async def main():
    engine = sgl.Engine(model_path="tiny")
    sgl.set_default_backend(engine)
    await asyncio.gather(stream_variable(), stream_variable())
    await stream_with_facts()
    await stream_engine(engine)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
