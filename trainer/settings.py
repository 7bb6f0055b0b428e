"""The frozen config of a task."""

from pydantic import ValidationError

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.hyperparameters import capped_length, limit_of
from core.tasks import ScoreTask, TrainTask
from trainer.settling import described_model


def config_of(task: TrainTask | ScoreTask) -> Config:
    """The resolved config that the job was made with; rows are no longer than the base can read. Raises ChildError BAD_SPEC."""
    try:
        config = Config.model_validate(dict(task.settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ChildError(
            f"the task's settings do not fit this lorad: {key}: {first['msg']}",
            hint="make a new job with `lorad jobs retry`",
            code="SETTINGS_UNFIT",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
    return config.model_copy(update={"max_length": capped_length(config.max_length, limit_of(described_model(task.base)))})
