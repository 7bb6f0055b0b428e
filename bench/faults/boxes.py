"""F31 to F36: wishes and releases that an inference box must not follow, and what it does when it was killed."""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from circle import chat_rows

from bench.faults import Outcome, Trial, fault
from bench.faults.roads import two_boxes

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "serving"))  # an inference box in a folder

TOLD_S = 10.0


@fault("F31", "an older wish arrives late", guard="the fence: a wish below the one that was seen is refused")
def stale(trial: Trial) -> Outcome:
    """A release is live, a person goes back to the base, then the message that asked for the release comes once more."""
    from inference_box import World

    world = World(trial.folder)
    agent = world.agent()
    release = world.release(None)
    agent.tick()
    late = world.box.desired.read_bytes()
    world.wish(None, release)
    agent.tick()
    world.box.desired.write_bytes(late)
    if not trial.guarded:
        agent.ledger.fence_seen = 0
        agent.ledger.is_new = lambda alias, fence: True  # type: ignore[method-assign]
        agent.ledger._says = lambda entry: False  # type: ignore[method-assign]
    agent.tick()
    refused = sum(code == "STALE_FENCE" for _, code in world.events("*"))
    return Outcome(held=world.live() is None and refused == 1, figure={"went_live": int(world.live() is not None), "refused": refused})


@fault("F32", "release for another base, tokenizer, template, backend, adapter", guard="hashes and names in the manifest against those of the box")
def foreign(trial: Trial) -> Outcome:
    from inference_box import World

    from serving.library import Library
    from store.wire import check_release

    crafted = ({"base": "x"}, {"tokenizer": "x"}, {"template": "x"}, {"backend": "mlx"}, {"backend": "peft"})
    missed, codes = [], []
    with ExitStack() as gone:
        if not trial.guarded:
            gone.enter_context(patch.object(Library, "_verify", lambda self, folder, release, alias: check_release(folder, self._keys)[1]))
        for number, changes in enumerate(crafted):
            world = World(trial.folder / str(number))
            agent = world.agent()
            release = world.release(None, **changes)
            agent.tick()
            codes.append(world.state().code)
            missed += [str(changes)] if world.live() == release else []
    return Outcome(held=not missed and "" not in codes, figure={"crafted": len(crafted), "missed": len(missed)}, note=", ".join(sorted({*codes} - {""})))


@fault("F33", "the two boxes disagree about what is live", guard="what the box says is pulled again and again, and its word counts")
def disagree(trial: Trial) -> Outcome:
    """The live release rots on the inference box, which starts again and serves the base."""
    from cli.deploy import row_of
    from deploy import delivery

    with two_boxes(trial) as pair, ExitStack() as gone:
        release = pair.release()
        pair.wish(release, None)
        pair.settle(release)
        if not trial.guarded:
            gone.enter_context(patch.object(delivery, "fetch", lambda road, names, folder: None))
        (pair.agent.library.folder(release) / "adapter_model.safetensors").write_bytes(b"rot")
        pair.start_box()
        began, said = time.monotonic(), release
        while said is not None and time.monotonic() - began < TOLD_S:
            pair.turn()
            row = row_of(pair.home, pair.target, pair.clock.now())
            said = row["adapters"]["default/main"]["live"]
        told_s = time.monotonic() - began
        named = row["adapters"]["default/main"]["reason"]
    held = pair.live is None and said is None and bool(named)
    return Outcome(held=held, figure={"told_s": round(told_s, 1)}, note="status names the base as live, the release as asked for, and why")


@fault("F34", "serving killed with -9", guard="the ledger: a start serves again what its last line says", without="restore")
def killed(trial: Trial) -> Outcome:
    circle = trial.circle()
    circle.start_both()
    circle.drop(chat_rows())
    circle.wait_state("released")
    mark = circle.ask().json()["choices"][0]["message"]["content"]
    circle.serving.ends = True
    circle.serving.kill()
    began = time.monotonic()
    circle.start_serving()
    down_s = time.monotonic() - began
    same = circle.ask().json()["choices"][0]["message"]["content"] == mark
    return Outcome(held=same, figure={"downtime_s": round(down_s, 1)}, note="without systemd, whose socket lets clients wait; see tests/units")


def _engine_with_numbers(rubbish: set[str]) -> Any:
    """A stub that has log-probabilities: those of the probe, and others for a release that answers rubbish."""
    from serving.engines.port import Blend
    from serving.engines.stub import StubEngine

    class Numbers(StubEngine):
        def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
            return [-9.0 if any(part.release in rubbish for part in blend) else -0.5] * len(ids)

    return Numbers("tiny", max_new_tokens=16)


@fault("F35", "an adapter loads and answers rubbish", guard="the probe: the box computes what the training box measured, before the flip")
def rubbish(trial: Trial) -> Outcome:
    from inference_box import Recipe, World, stub_adapter

    from serving import residence

    def measured(folder: Path) -> None:
        stub_adapter(folder)
        side = '{"ids": [1, 2], "logprobs": [-0.5, -0.5]}'
        (folder / "probe.jsonl").write_text(f'{{"prompt": "Hi", "prompt_ids": [3], "base": {side}, "adapter": {side}}}\n')

    world, bad = World(trial.folder), set[str]()
    agent = world.agent(_engine_with_numbers(bad))
    first = world.pack(Recipe(fill=measured))
    world.send(first)
    world.wish(first, None)
    agent.tick()
    second = world.pack(Recipe(version=2, fill=measured))
    bad.add(second)
    world.send(second)
    world.wish(second, first)
    with ExitStack() as gone:
        if not trial.guarded:
            gone.enter_context(patch.object(residence, "probe", lambda engine, release, folder: None))
        agent.tick()
    bad_answers = int(world.live() == second)
    figure = {"bad_answers": bad_answers, "code": world.state().code}
    return Outcome(held=world.live() == first and world.state().code == "PROBE_FAILED", figure=figure, note="the release before it serves on")


@fault("F36", "the release to go back to is missing", guard="the release is verified and loaded before the alias moves")
def missing(trial: Trial) -> Outcome:
    """Two go live after it, its files are deleted on both boxes; and a wish for two things at once: one wins, never none."""
    from inference_box import World

    from serving.residence import Residence

    world = World(trial.folder)
    agent = world.agent()
    releases: list[str | None] = [None]
    for version in (1, 2, 3):
        releases.append(world.release(releases[-1], version=version))
        agent.tick()
    first, third = str(releases[1]), str(releases[3])
    shutil.rmtree(agent.library.folder(first))
    with ExitStack() as gone:
        if not trial.guarded:
            manifest = agent._manifests[third]
            gone.enter_context(patch.object(Residence, "take_in", lambda self, release, alias: replace(manifest, version=1)))
        world.wish(first, third)
        agent.tick()
    with agent.routes.pin("default/main") as pinned:
        answers = pinned.release
    held = world.live() == answers == third
    code = world.state().code
    again = world.agent()
    with again.routes.pin("default/main") as pinned:
        after = pinned.release
    return Outcome(held=held and after == third, figure={"code": code, "live_stays": held}, note="told by its code, and by a new wish it is sent again")
