"""One training, from its spec to sealed checkpoints, on whichever backend the spec names."""

from pathlib import Path

from core.abilities import ABILITIES, require_able
from core.errors import ChildError, ConfigError
from core.exits import ChildExit
from core.starting import begins_on_base
from core.tasks import ExitNote, TrainTask
from rendering.rows import spec_of
from store.child import clock
from store.runs import write_spec
from trainer.backends import find
from trainer.run import RunFolder
from trainer.settings import config_of
from trainer.space import full_disk


class TrainerEngine:
    """Carries out a training in this process; `python -m trainer`, which the daemon and `lorad train` start, does it with this.

    >>> note = TrainerEngine(spec, "runs/mine/01-train").run()
    >>> note.candidates[-1].path
    'checkpoints/step_000105'

    Args: spec: what to train on what, with absolute paths. folder: the run folder; it is made where it is missing.
    Returns: of `run`, what lies in the folder then: steps, candidates, resume point, device, tokens.
    Raises: of `run`, ChildError (BACKEND_UNABLE before anything is loaded; see ChildExit for the others), IntegrityError, and
    store.child.Stopped after a resume point was sealed.
    Side effects: writes below the run folder only; torch's threads and random state are this process's own.
    """

    def __init__(self, spec: TrainTask, folder: str | Path | RunFolder) -> None:
        self.spec = spec
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder(Path(folder).absolute())

    def run(self) -> ExitNote:
        """Train to the end, or to a stop. Raises ChildError, IntegrityError, Stopped."""
        root = self.folder.root
        root.mkdir(parents=True, exist_ok=True)
        if not self.folder.spec.exists():
            write_spec(root, self.spec)
        if self.spec.backend in ABILITIES:  # `find` says what is wrong with another
            self._require_able()
        if self.spec.start and (why := begins_on_base(config_of(self.spec))):
            raise ChildError(
                f"the training cannot go on from an adapter: {why}",
                hint="leave the start out, or the layers of the stages",
                code="START_UNFIT",
                exit_code=ChildExit.BAD_SPEC,
            )
        backend = find(self.spec.backend)
        with full_disk(root):
            backend.train(self.spec, self.folder)
        return self.folder.results(ExitNote(code=ChildExit.DONE, ended_at=clock()))

    def _require_able(self) -> None:
        try:
            taught = (spec_of(source).objective for source in self.spec.rows)
            require_able(config_of(self.spec), self.spec.backend, next((objective for objective in taught if objective != "sft"), ""))
        except ConfigError as error:
            raise ChildError(error.what, hint=error.hint, code=error.code, exit_code=ChildExit.BAD_SPEC) from None
