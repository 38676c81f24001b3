"""The LM program of prompt editing (TEMPERA, arXiv 2211.11890): how likely each label word is after a prompt."""

import ramify as rf


@rf.program
def label_scores(s, prompt: str, words: list[str]):
    """The log-probability of each label word after a prompt."""
    s += prompt
    s += rf.score("scores", words)
    return s["scores"]
