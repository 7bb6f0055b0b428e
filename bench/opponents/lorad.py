"""lorad itself, as a trainer child runs it: the `peft` backend on a run folder, step by step.

Arguments: run folder with spec.json. Before it is ready it writes `order.json`, the rows of its steps, and `adapter/`, the
adapter that it starts from, so that others take the same.
"""

import json
import sys
from pathlib import Path

from bench.opponents.pace import Pace


def main() -> None:
    pace, root = Pace(), Path(sys.argv[1])
    from core.tasks import TrainTask
    from store import codec
    from trainer.backends import training
    from trainer.backends.limit import flops_per_token
    from trainer.backends.model import write_adapter
    from trainer.backends.peft import PeftBackend
    from trainer.run import RunFolder

    class Paced(RunFolder):
        """Waits before each step, and says what each gave."""

        def rest(self) -> None:
            pace.wait()

        def report(self, stage: str, *, last: bool = False, **values: object) -> None:
            if stage == "train":
                pace.done(float(str(values["loss"])))

    class Told(training.Training):
        def go(self) -> None:
            rows = [self.setup.train.kept[index] for step in range(1, self.plan.total_steps + 1) for index in self.plan.rows(step)]
            (root / "order.json").write_text(json.dumps([[example.row.line, list(example.ids), list(example.learnt)] for example in rows]))
            (root / "adapter").mkdir()
            write_adapter(self.model, root / "adapter", self.base_name)
            pace.ready(flops_per_token=flops_per_token(self.model, self.setup.train.supervised_share))
            super().go()

    training.Training = Told
    PeftBackend().train(codec.read(TrainTask, root / "spec.json"), Paced(root))


main()
