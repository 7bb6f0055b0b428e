# Made by scripts/stubs.py of lorad.proto; edit that instead.
# ruff: noqa
# fmt: off
# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STORED: _ClassVar[State]
    LOADED: _ClassVar[State]
    LIVE: _ClassVar[State]
    LEAVING: _ClassVar[State]
STATE_UNSPECIFIED: State
STORED: State
LOADED: State
LIVE: State
LEAVING: State

class LoadAdapterRequest(_message.Message):
    __slots__ = ("adapter_path", "adapter_id", "scale", "replace_id")
    ADAPTER_PATH_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_ID_FIELD_NUMBER: _ClassVar[int]
    adapter_path: str
    adapter_id: str
    scale: float
    replace_id: str
    def __init__(self, adapter_path: _Optional[str] = ..., adapter_id: _Optional[str] = ..., scale: _Optional[float] = ..., replace_id: _Optional[str] = ...) -> None: ...

class LoadAdapterResponse(_message.Message):
    __slots__ = ("model", "release")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    model: str
    release: str
    def __init__(self, model: _Optional[str] = ..., release: _Optional[str] = ...) -> None: ...

class UnloadAdapterRequest(_message.Message):
    __slots__ = ("adapter_id",)
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    adapter_id: str
    def __init__(self, adapter_id: _Optional[str] = ...) -> None: ...

class UnloadAdapterResponse(_message.Message):
    __slots__ = ("leaves_in_s",)
    LEAVES_IN_S_FIELD_NUMBER: _ClassVar[int]
    leaves_in_s: float
    def __init__(self, leaves_in_s: _Optional[float] = ...) -> None: ...

class ListAdaptersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAdaptersResponse(_message.Message):
    __slots__ = ("adapters",)
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[Adapter]
    def __init__(self, adapters: _Optional[_Iterable[_Union[Adapter, _Mapping]]] = ...) -> None: ...

class Adapter(_message.Message):
    __slots__ = ("release", "model", "state", "scale", "aliases", "leaves_in_s")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    LEAVES_IN_S_FIELD_NUMBER: _ClassVar[int]
    release: str
    model: str
    state: State
    scale: float
    aliases: _containers.RepeatedScalarFieldContainer[str]
    leaves_in_s: float
    def __init__(self, release: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., scale: _Optional[float] = ..., aliases: _Optional[_Iterable[str]] = ..., leaves_in_s: _Optional[float] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("ready", "engine", "base", "base_sha256", "missing")
    READY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    engine: str
    base: str
    base_sha256: str
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ready: _Optional[bool] = ..., engine: _Optional[str] = ..., base: _Optional[str] = ..., base_sha256: _Optional[str] = ..., missing: _Optional[_Iterable[str]] = ...) -> None: ...
