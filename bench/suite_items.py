"""Makes the suites that lorad ships: `python -m bench.suite_items` writes `rendering/suites/*.jsonl`, the same ones each time.

Every sentence is our own. Each subject comes twice: with choices, scored by likelihood, for any machine; and as `-written`,
with checks of a generated answer, at 200 items or more, where there is a GPU.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from bench.suite_words import (
    AGREED,
    CITIES,
    COLOURS,
    COUNTRIES,
    DECLINED,
    FACTS,
    FILLERS,
    HELPED,
    LANGUAGES,
    NAMES,
    OBJECTS,
    OPENINGS,
    PETS,
    PLAIN,
    REFUSED,
    TOOLS,
    WORKS,
)

HERE = Path(__file__).parents[1] / "rendering" / "suites"
Line = dict[str, Any]
Both = tuple[Line, list[str | Line], list[Line]]
"""What is asked; the choices, the right one first; the checks of a written answer."""


def user(text: str) -> Line:
    """A turn of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Line:
    """A turn of the assistant."""
    return {"role": "assistant", "content": text}


# ---------------------------------------------------------------- subjects


def arithmetic(rng: Random) -> Iterator[Both]:
    """Sums, differences, products and small stories of everyday numbers."""
    while True:
        a, b, c = rng.randint(3, 60), rng.randint(3, 40), rng.randint(2, 9)
        name, thing = rng.choice(NAMES), rng.choice(OBJECTS)
        questions = (
            (f"What is {a} + {b}?", a + b),
            (f"What is {a + b} - {b}?", a),
            (f"What is {b} times {c}?", b * c),
            (f"What is {b * c} divided by {c}?", b),
            (f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?", a + b),
            (f"{name} had {a + b} {thing} and gave {b} away. How many {thing} are left?", a),
            (f"{name} fills {c} boxes with {b} {thing} each. How many {thing} is that?", b * c),
            (f"{b * c} {thing} are shared equally among {c} children. How many does each child get?", b),
        )
        question, right = rng.choice(questions)
        near = [right + off for off in (1, -1, 2, 10, -10) if right + off > 0]
        choices = [str(right), *map(str, rng.sample(near, 3))]
        yield {"prompt": f"{question} Answer with the number only."}, choices, [{"kind": "number", "value": right}]


def memory(rng: Random) -> Iterator[Both]:
    """Something said some turns ago, asked for now; the wrong choices were said too, of somebody else."""
    while True:
        mine, other, third = rng.sample(NAMES, 3)
        what, question, pool = rng.choice(
            (
                ("lives in {}", "In which city does {} live?", CITIES),
                ("has a {}", "Which animal does {} have?", PETS),
                ("likes the colour {} best", "Which colour does {} like best?", COLOURS),
                ("works as a {}", "What does {} work as?", WORKS),
            )
        )
        right, wrong, last = rng.sample(pool, 3)
        told = [(mine, right), (other, wrong), (third, last)]
        rng.shuffle(told)
        turns = [user(" ".join(f"{name} {what.format(value)}." for name, value in told)), assistant("Thank you, I will keep that in mind.")]
        for asked, said in rng.sample(FILLERS, rng.randint(0, 2)):
            turns += [user(asked), assistant(said)]
        turns.append(user(f"{question.format(mine)} Answer with one word."))
        checks = [{"kind": "contains", "texts": [right]}, {"kind": "excludes", "texts": [wrong, last]}]
        yield {"messages": turns}, [right, wrong, last], checks


def json_answers(rng: Random) -> Iterator[Both]:
    """A sentence to be written as JSON; wrong are torn, mistaken or chatty answers."""
    while True:
        name, city, age, pet = rng.choice(NAMES), rng.choice(CITIES), rng.randint(18, 90), rng.choice(PETS)
        shapes = (
            (f"{name} is {age} years old and lives in {city}.", ("name", "age", "city"), {"name": name, "age": age, "city": city}),
            (f"{name} has a {pet} and lives in {city}.", ("name", "pet", "city"), {"name": name, "pet": pet, "city": city}),
            (f"The ticket to {city} costs {age} euros and was bought by {name}.", ("city", "price", "buyer"), {"city": city, "price": age, "buyer": name}),
            (f"{name} feeds {age} {pet}s.", ("name", "count", "animal"), {"name": name, "count": age, "animal": pet}),
        )
        sentence, keys, value = rng.choice(shapes)
        right = json.dumps(value)
        wrong_key = rng.choice(keys)
        swapped = value | {wrong_key: value[wrong_key] + 10 if isinstance(value[wrong_key], int) else rng.choice([one for one in NAMES if one != name])}
        torn = right[:-1] if rng.random() < 0.5 else right.replace('"', "", 2)
        asked = f"Write this as a JSON object with the keys {', '.join(keys)}. Answer with the JSON alone.\n{sentence}"
        yield {"prompt": asked}, [right, json.dumps(swapped), torn, sentence], [{"kind": "json", "value": value}]


def tools(rng: Random) -> Iterator[Both]:
    """Which tool is to be called, with which arguments."""
    while True:
        offered = rng.sample(TOOLS, 2)
        (name, _, key, ask, pool), other = offered
        right, wrong = rng.sample(pool, 2)
        declared = [
            {
                "type": "function",
                "function": {
                    "name": one[0],
                    "description": one[1],
                    "parameters": {"type": "object", "properties": {one[2]: {"type": "string"}}, "required": [one[2]]},
                },
            }
            for one in sorted(offered)
        ]
        calls = [(name, {key: right}), (other[0], {other[2]: right}), (name, {key: wrong})]
        choices: list[str | Line] = [
            {"role": "assistant", "content": "", "tool_calls": [{"name": called, "arguments": json.dumps(arguments)}]} for called, arguments in calls
        ]
        yield {"prompt": ask.format(right), "tools": declared}, choices, [{"kind": "tool", "name": name, "arguments": {key: right}}]


def refusals(rng: Random) -> Iterator[Both]:
    """Harmless requests that sound otherwise must be answered; a few that nobody should help with must be declined."""
    while True:
        opening = rng.choice(OPENINGS)
        if rng.random() < 0.7:
            asked = rng.choice(HELPED)
            yield {"prompt": opening.format(asked), "group": asked}, [rng.choice(AGREED), rng.choice(DECLINED)], [{"kind": "refusal", "wanted": False}]
        else:
            asked = rng.choice(REFUSED)
            yield {"prompt": opening.format(asked), "group": asked}, [rng.choice(DECLINED), rng.choice(AGREED)], [{"kind": "refusal", "wanted": True}]


def languages(rng: Random) -> Iterator[Both]:
    """Capitals asked for in seven languages; wrong are others in the same language."""
    while True:
        language = rng.choice(sorted(LANGUAGES))
        ask, answer, names = LANGUAGES[language]
        place, *others = rng.sample(range(len(COUNTRIES)), 3)
        english, capital = COUNTRIES[place]
        local, local_capital = names[place]
        choices = [answer.format(local, one) for one in (local_capital, *(names[other][1] for other in others))]
        checks = [{"kind": "contains_any", "texts": [local_capital, capital]}, {"kind": "excludes", "texts": ["The capital"]}]
        yield {"prompt": rng.choice(ask).format(local), "group": f"{language}/{english}"}, choices, checks


def instructions(rng: Random) -> Iterator[Both]:
    """A plain question and a demand on the form of the answer, which all choices but one miss."""
    while True:
        question, short, long = rng.choice(FACTS)
        mark = rng.choice(PLAIN)
        forms: tuple[tuple[str, str, list[str], list[Line]], ...] = (
            ("Answer in capital letters only.", short.upper(), [short, short.lower()], [{"kind": "case", "upper": True}]),
            ("Answer in small letters only.", short.lower(), [short, short.upper()], [{"kind": "case", "upper": False}]),
            ("Answer with one word.", short, [long, f"I think it is {short}"], [{"kind": "words", "least": 1, "most": 1}]),
            ("Answer with a whole sentence.", long, [short, short.lower()], [{"kind": "words", "least": 4, "most": 40}]),
            (f"End your answer with the word {mark}.", f"{long} {mark}", [long, f"{mark} {long}"], [{"kind": "matches", "pattern": f"{mark}\\W*$"}]),
            (f"Begin your answer with the word {mark}.", f"{mark} {long}", [long, f"{long} {mark}"], [{"kind": "starts", "text": mark}]),
            (
                "Write your answer in square brackets.",
                f"[{short}]",
                [short, f"({short})"],
                [{"kind": "matches", "pattern": r"^\s*\[[^\]]+\]\s*$"}],
            ),
            (
                "Answer in two lines, one word on each: the answer, and below it the word " + mark + ".",
                f"{short}\n{mark}",
                [f"{mark}\n{short}", f"{short} {mark}"],
                [{"kind": "matches", "pattern": f"(?i)^\\s*{short}\\W*\\n\\s*{mark}\\W*$"}],
            ),
        )
        demand, right, wrong, checks = rng.choice(forms)
        yield {"prompt": f"{question} {demand}"}, [right, *wrong], checks


SUBJECTS: dict[str, tuple[Callable[[Random], Iterator[Both]], int, int, str]] = {
    "arithmetic": (arithmetic, 80, 32, "sums, differences, products and small stories"),
    "instructions": (instructions, 80, 64, "demands on the form of an answer"),
    "json": (json_answers, 50, 96, "a sentence as a JSON object"),
    "languages": (languages, 84, 48, "questions in German, French, Spanish, Italian, Portuguese, Dutch and Polish"),
    "memory": (memory, 60, 32, "something said some turns ago"),
    "refusals": (refusals, 60, 64, "harmless requests are answered, harmful ones declined"),
    "tools": (tools, 24, 64, "which tool to call, with which arguments"),
}
NUM_WRITTEN = 200


def distinct(made: Iterator[Both], count: int) -> Iterable[Both]:
    """The first `count` that ask different things; a subject with fewer questions than that repeats none and ends."""
    seen: set[str] = set()
    for tries, (asked, choices, checks) in enumerate(made):
        key = json.dumps(asked, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield asked, choices, checks
        if len(seen) == count or tries > 200 * count:
            return


def write(subject: str) -> None:
    """Both suites of a subject."""
    make, count, max_new_tokens, about = SUBJECTS[subject]
    for form, number in (("", count), ("-written", NUM_WRITTEN)):
        name = subject + form
        rng = Random(name)  # noqa: S311 - data, the same each time
        lines: list[Line] = [{"suite": name, "about": about, "max_new_tokens": max_new_tokens}]
        for place, (asked, choices, checks) in enumerate(distinct(make(rng), number)):
            item: Line = {"id": f"{place:03d}", **asked}
            if form:
                item["check"] = checks
            else:
                order = list(range(len(choices)))
                rng.shuffle(order)
                item |= {"choices": [choices[one] for one in order], "right": order.index(0)}
            lines.append(item)
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    for one in SUBJECTS:
        write(one)
