"""A program of 100 lines, the way people write them, for measuring what compiling costs."""

from __future__ import annotations

import ramify as rf


def opening(s, role, topic):
    s += rf.system(f"You are {role}. You interview experts about {topic}.")
    s += rf.user("Begin the interview with one short question.")
    s += rf.assistant(rf.gen("opening", max_tokens=48, stop="\n"))
    return s["opening"]


def follow_up(s, answer, style="curious"):
    if len(answer) > 400:
        answer = answer[:400] + "..."
    s += rf.user(f"The expert said: {answer}\nAsk one {style} follow-up question.")
    s += rf.assistant(rf.gen("question", max_tokens=48, stop="\n", temperature=0.3))
    return s["question"].strip()


@rf.program
def interview(s, topic, experts, rounds=3, threshold=0.5, audience=None):
    """Interview experts in turn, judge their answers, and write a report."""
    notes = []
    seen = set()
    first = opening(s, "a journalist", topic)
    for name in experts:
        if name in seen:
            continue
        seen.add(name)
        branch = s.copy()
        branch += rf.user(f"You are now {name}. Answer the question: {first}")
        branch += rf.assistant(rf.gen("answer", max_tokens=128))
        history = [branch["answer"]]
        for turn in range(rounds):
            question = follow_up(branch, history[-1])
            if not question:
                break
            branch += rf.user(question)
            branch += rf.assistant(rf.gen("answer", max_tokens=128))
            history.append(branch["answer"])
            branch += rf.user("Is there more to ask?")
            branch += rf.assistant(rf.select("more", ["yes", "no"]))
            if branch["more"] == "no":
                break
        notes.append({"expert": name, "history": history, "turns": len(history)})
    if not notes:
        s += rf.user("Nobody came. Say so.")
        s += rf.assistant(rf.gen("report", max_tokens=32))
        return s["report"]
    aspects = ["depth", "clarity", "novelty"]
    scores = {}
    for note in notes:
        forks = s.fork(len(aspects))
        transcript = "\n".join(f"- {line}" for line in note["history"])
        for fork, aspect in zip(forks, aspects):
            fork += rf.user(f"Judge the {aspect} of this interview from 1 to 9.\n{transcript}")
            fork += rf.assistant(rf.gen("grade", max_tokens=2, stop=[" ", "\n"]))
        grades = []
        for fork, aspect in zip(forks, aspects):
            text = fork["grade"].strip()
            if text.isdigit():
                grades.append(int(text))
            else:
                grades.append(0)
        total = sum(grades)
        mean = total / max(len(grades), 1)
        scores[note["expert"]] = mean
        s += rf.user(f"{note['expert']} was graded {mean:.1f}.")
        s += rf.assistant("Noted.")
    best = max(scores, key=scores.get)
    kept = [note for note in notes if scores[note["expert"]] >= threshold * scores[best]]
    drafts = s.fork(3)
    styles = ("a headline", "a summary", "three quotes")
    for draft, style in zip(drafts, styles):
        draft += rf.user(f"Write {style} of what {best} said.")
        draft += rf.assistant(rf.gen("text", max_tokens=96))
    drafts.join()
    headline, summary, quotes = s["text"]
    length = len(headline) + len(summary)
    s += rf.user("Here are the drafts:\n" + headline + "\n" + summary + "\n" + quotes)
    if audience is not None:
        s += rf.user(f"Rewrite for {audience}.")
        s += rf.assistant(rf.gen("report", max_tokens=256))
    elif length > 800:
        s += rf.user("Shorten it.")
        s += rf.assistant(rf.gen("report", max_tokens=128))
    else:
        s += rf.assistant(rf.gen("report", max_tokens=256))
    attempts = 0
    while attempts < 3:
        s += rf.user("Is this fit to print?")
        s += rf.assistant(rf.select("verdict", ["print", "revise"]))
        if s["verdict"] == "print":
            break
        s += rf.user("Revise it.")
        s += rf.assistant(rf.gen("report", max_tokens=256))
        attempts += 1
    return {"report": s["report"], "best": best, "kept": len(kept), "attempts": attempts}
