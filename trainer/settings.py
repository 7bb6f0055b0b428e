"""The frozen config of a task."""

from pydantic import ValidationError

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import ScoreTask, TrainTask


def config_of(task: TrainTask | ScoreTask) -> Config:
    """The resolved config that the job was made with. Raises ChildError BAD_SPEC."""
    try:
        return Config.model_validate(dict(task.settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ChildError(
            f"the task's settings do not fit this lorad: {key}: {first['msg']}",
            hint="make a new job with `lorad jobs retry`",
            code="SETTINGS_UNFIT",
            exit_code=ChildExit.BAD_SPEC,
        ) from None
