"""Ten conversations with a starter model, unedited, and how its replies to 200 held-out openings are, as the body of docs/starter.md.

    python benchmarks/starter_transcripts.py demo > body.md

The openings below were written before the model was trained; seed N is that of ``gptwright chat --seed N``.
"""

import sys

import gptwright as gw
from gptwright.project.evaluating import evaluate

OPENINGS = (
    ("Hello! How are you today?", "What do you like to do at the weekend?", "That sounds fun. Do you like music?"),
    ("Hi, what's up?", "Are you a student?", "What do you study?"),
    ("Hey there!", "Do you have any pets?", "I have a dog. Do you like dogs?"),
    ("Good morning!", "What did you do yesterday?", "Was it fun?"),
    ("What is your favorite food?", "I like pizza too. Do you cook?", "What do you cook?"),
    ("Have you seen any good movies lately?", "What was it about?", "I will watch it. Thanks!"),
    ("Where are you from?", "What is it like there?", "Would you like to live somewhere else?"),
    ("If you could travel anywhere, where would you go?", "Why there?", "Who would you take with you?"),
    ("How is the weather?", "Do you prefer summer or winter?", "Why?"),
    ("I'm so tired today.", "I had a lot of homework.", "Thank you. Have a nice day!"),
)


def main(folder: str) -> None:
    """Print the transcripts and the table of signs."""
    project = gw.Project.open(folder)
    model = gw.load(None, project=project)
    print(f"Model: `{model.id}`\n")
    for seed, turns in enumerate(OPENINGS, 1):
        messages: list[dict[str, str]] = []
        print(f"### Seed {seed}\n\n```text")
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            # The settings and the seed of each turn are those of `gptwright chat --seed N`.
            reply = model.chat(messages, max_tokens=128, temperature=0.7, top_p=0.9, seed=seed + len(messages))
            print(f"you> {turn}\ngpt> {reply}")
            messages.append({"role": "assistant", "content": reply})
        print("```\n")
    report, _ = evaluate(project, None, ["chat"])
    chat = report["chat"]
    print("## 200 replies to held-out openings\n\n| sign | share | 95 % interval |\n|---|---|---|")
    names = {
        "complete_sentence": "ends in a complete sentence",
        "no_repeat": "repeats no 4-gram",
        "on_subject": "shares a content word with the conversation",
        "all_three": "all three",
    }
    for key, label in names.items():
        share = chat[key]
        print(f"| {label} | {share['value']:.1%} | {share['low']:.1%} to {share['high']:.1%} |")


if __name__ == "__main__":
    main(sys.argv[1])
