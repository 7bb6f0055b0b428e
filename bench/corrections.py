"""What 500 corrections give: from the door of the serving box to the verdict, with nobody's hand, once for each of three seeds.

Questions of GSM8K, whose answers were corrected into a house style: the result first, then why. They go to POST /v1/feedback
one by one; a trigger makes the drop, the gate holds rows back, the real model is trained and judged. Completion loss of base
and candidate on the gate split is paired by row; the seeds' gains are averaged by row before the interval is taken, so that
three trainings on the same rows do not pass for three times the evidence.
"""

import http.client
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.circle import home, running, wait
from bench.gain import REAL, ended, mean
from core.names import DEFAULT_BASE

ROWS = 500
SEEDS = (0, 1, 2)
RESAMPLES = 10_000
PATIENCE_S = 3600.0  # of one seed; some ten minutes on two cores that are free


def measure(rows: int = ROWS) -> dict[str, Any]:
    """`gain_500_corrections`: nats a token that the loss falls, with its 95 % interval, over all seeds and for each."""
    files = [of_seed(seed, rows) for seed in SEEDS]
    if not all("before" in one for one in files):
        return {"gain_500_corrections": "not measured", "corrections": rows, "seeds": [one["told"] for one in files]}
    from ranking.statistics import paired_bootstrap

    def gain(differences: Sequence[Any]) -> list[float]:
        found = paired_bootstrap(np.mean(differences, axis=0), files[0]["tokens"], files[0]["groups"], resamples=RESAMPLES, seed=0)
        return [round(-value, 4) for value in (found.mean, found.high, found.low)]

    assert all(one["rows"] == files[0]["rows"] for one in files), "the same rows make the same gate split, whatever the seed of a training"
    each = [one["after"] - one["before"] for one in files]
    gains = {"gain_500_corrections": gain(each), "corrections": rows, "held_out_rows": len(files[0]["rows"]), "loss_base": files[0]["told"]["loss_base"]}
    return gains | {"seeds": [one["told"] | {"gain": gain([difference])} for one, difference in zip(files, each, strict=True)]}


def of_seed(seed: int, rows: int, **config: Any) -> dict[str, Any]:
    """One whole round: {told, before, after, tokens, groups, rows}; only `told` where it came to no verdict. `config`: more of it, for a dry run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enough = {"enough": {"any": [{"rows": rows}], "min_rows": rows, "cooldown_s": 0}}
        home(folder, training={"epochs": 1.0, "seed": seed}, triggers=enough, feedback={"source_cap": 0, "user_cap": 0}, ranking={"suites": []}, **config)
        port = json.loads((folder / "config.json").read_text())["serving"]["port"]
        with running(folder, "serve"), running(folder, "daemon"):
            wait(lambda: (folder / "var" / "status.json").exists() and answers(port))
            sent = time.time()
            for correction in corrections(rows):
                post(port, correction)
            accepted_s = time.time() - sent
            wait(lambda: ended(folder) is not None, PATIENCE_S)
        told = {"seed": seed, "outcome": ended(folder), "corrections_s": round(accepted_s, 1), "round_s": round(time.time() - sent, 1)}
        return scores(folder, told)


def corrections(rows: int) -> list[dict[str, Any]]:
    """What a client sends: the question, and the answer in the house style."""
    lines = (REAL / "gsm8k_train_chat.jsonl").read_text().splitlines()[:rows]
    found = []
    for question, answer in ((row["messages"][0]["content"], row["messages"][1]["content"]) for row in map(json.loads, lines)):
        steps, _, result = answer.partition("\n#### ")
        text = f"Result: {result.strip()}.\n" + "\n".join(f"- {step.strip()}" for step in steps.splitlines() if step.strip())
        message = {"kind": "correction", "model": DEFAULT_BASE, "messages": [{"role": "user", "content": question}], "correction": text, "consent": True}
        found.append(message)
    return found


def post(port: int, body: dict[str, Any]) -> None:
    """Raises RuntimeError where the box does not take it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/feedback", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        said = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"the box answers {reply.status}: {said[:300]!r}")
    finally:
        connection.close()


def answers(port: int) -> bool:
    """Whether the box is up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def scores(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The paired losses on the gate split that the verdict was given by."""
    from ranking.scores import read_scores

    found = next(iter(sorted((folder / "var" / "runs").glob("*/*/verdict.json"))), None)
    if found is None:
        return {"told": told}
    verdict = json.loads(found.read_text())
    files = {}
    for model in (verdict["incumbent"], verdict["candidate"]):
        path = next(iter(sorted(found.parents[1].glob(f"*-score/scores/gate-{model}.jsonl"))))
        files[model] = read_scores(f"gate/{model}", path)
    before, after = files[verdict["incumbent"]], files[verdict["candidate"]]
    told |= {"verdict": verdict["word"], "loss_base": mean(before.loss, before.tokens), "loss_candidate": mean(after.loss, after.tokens)}
    order = np.argsort([f"{group}/{line}" for group, (_, line) in zip(before.groups, before.rows, strict=True)])
    assert before.rows == after.rows, "both models were scored on the same rows"
    return {
        "told": told,
        "before": before.loss[order],
        "after": after.loss[order],
        "tokens": before.tokens[order],
        "groups": [before.groups[place] for place in order],
        "rows": [before.groups[place] for place in order],
    }
