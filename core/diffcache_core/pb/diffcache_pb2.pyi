import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_MODE_UNSPECIFIED: _ClassVar[CacheMode]
    CACHE_MODE_DEFAULT: _ClassVar[CacheMode]
    CACHE_MODE_BYPASS: _ClassVar[CacheMode]
    CACHE_MODE_REFRESH: _ClassVar[CacheMode]
    CACHE_MODE_READ_ONLY: _ClassVar[CacheMode]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]

class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESULT_UNSPECIFIED: _ClassVar[Result]
    RESULT_EXACT: _ClassVar[Result]
    RESULT_APPROXIMATE: _ClassVar[Result]
    RESULT_MISS: _ClassVar[Result]
    RESULT_BYPASS: _ClassVar[Result]
CACHE_MODE_UNSPECIFIED: CacheMode
CACHE_MODE_DEFAULT: CacheMode
CACHE_MODE_BYPASS: CacheMode
CACHE_MODE_REFRESH: CacheMode
CACHE_MODE_READ_ONLY: CacheMode
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
RESULT_UNSPECIFIED: Result
RESULT_EXACT: Result
RESULT_APPROXIMATE: Result
RESULT_MISS: Result
RESULT_BYPASS: Result

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "negative_prompt", "seed", "steps", "guidance", "width", "height", "format", "cache_mode", "min_similarity", "max_skip_percent", "request_id")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CACHE_MODE_FIELD_NUMBER: _ClassVar[int]
    MIN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    MAX_SKIP_PERCENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    format: ImageFormat
    cache_mode: CacheMode
    min_similarity: float
    max_skip_percent: int
    request_id: str
    def __init__(self, prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., guidance: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., cache_mode: _Optional[_Union[CacheMode, str]] = ..., min_similarity: _Optional[float] = ..., max_skip_percent: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("image", "format", "result", "similarity", "steps", "steps_skipped", "depth", "parent_entry_id", "seed", "seconds", "request_id", "model", "flagged", "prompt_tokens_dropped", "negative_prompt_tokens_dropped", "entry_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PARENT_ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_TOKENS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    format: ImageFormat
    result: Result
    similarity: float
    steps: int
    steps_skipped: int
    depth: int
    parent_entry_id: str
    seed: int
    seconds: Seconds
    request_id: str
    model: str
    flagged: bool
    prompt_tokens_dropped: int
    negative_prompt_tokens_dropped: int
    entry_id: str
    def __init__(self, image: _Optional[bytes] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., result: _Optional[_Union[Result, str]] = ..., similarity: _Optional[float] = ..., steps: _Optional[int] = ..., steps_skipped: _Optional[int] = ..., depth: _Optional[int] = ..., parent_entry_id: _Optional[str] = ..., seed: _Optional[int] = ..., seconds: _Optional[_Union[Seconds, _Mapping]] = ..., request_id: _Optional[str] = ..., model: _Optional[str] = ..., flagged: _Optional[bool] = ..., prompt_tokens_dropped: _Optional[int] = ..., negative_prompt_tokens_dropped: _Optional[int] = ..., entry_id: _Optional[str] = ...) -> None: ...

class Seconds(_message.Message):
    __slots__ = ("total", "queue", "encode", "look_up", "load", "denoise", "decode", "compress")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    LOOK_UP_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DENOISE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    total: float
    queue: float
    encode: float
    look_up: float
    load: float
    denoise: float
    decode: float
    compress: float
    def __init__(self, total: _Optional[float] = ..., queue: _Optional[float] = ..., encode: _Optional[float] = ..., look_up: _Optional[float] = ..., load: _Optional[float] = ..., denoise: _Optional[float] = ..., decode: _Optional[float] = ..., compress: _Optional[float] = ...) -> None: ...

class GenerateStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: GenerateRequest
    def __init__(self, request: _Optional[_Union[GenerateRequest, _Mapping]] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("progress", "generation")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    generation: GenerateResponse
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., generation: _Optional[_Union[GenerateResponse, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "steps_skipped")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    steps_skipped: int
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., steps_skipped: _Optional[int] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("requests", "exact", "approximate", "miss", "bypass", "errors", "steps_run", "steps_skipped", "steps_saved_ratio", "entries", "states", "bytes", "capacity_bytes", "pending_steps", "model", "device", "levels_source", "levels", "tuning")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    MISS_FIELD_NUMBER: _ClassVar[int]
    BYPASS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    STEPS_RUN_FIELD_NUMBER: _ClassVar[int]
    STEPS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    STEPS_SAVED_RATIO_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PENDING_STEPS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LEVELS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    TUNING_FIELD_NUMBER: _ClassVar[int]
    requests: int
    exact: int
    approximate: int
    miss: int
    bypass: int
    errors: int
    steps_run: int
    steps_skipped: int
    steps_saved_ratio: float
    entries: int
    states: int
    bytes: int
    capacity_bytes: int
    pending_steps: int
    model: str
    device: str
    levels_source: str
    levels: _containers.RepeatedCompositeFieldContainer[Level]
    tuning: str
    def __init__(self, requests: _Optional[int] = ..., exact: _Optional[int] = ..., approximate: _Optional[int] = ..., miss: _Optional[int] = ..., bypass: _Optional[int] = ..., errors: _Optional[int] = ..., steps_run: _Optional[int] = ..., steps_skipped: _Optional[int] = ..., steps_saved_ratio: _Optional[float] = ..., entries: _Optional[int] = ..., states: _Optional[int] = ..., bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., pending_steps: _Optional[int] = ..., model: _Optional[str] = ..., device: _Optional[str] = ..., levels_source: _Optional[str] = ..., levels: _Optional[_Iterable[_Union[Level, _Mapping]]] = ..., tuning: _Optional[str] = ...) -> None: ...

class Level(_message.Message):
    __slots__ = ("skip_percent", "similarity")
    SKIP_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    skip_percent: int
    similarity: float
    def __init__(self, skip_percent: _Optional[int] = ..., similarity: _Optional[float] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("tenant", "prompt_contains", "entry_id", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_CONTAINS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    prompt_contains: str
    entry_id: str
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., prompt_contains: _Optional[str] = ..., entry_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "total")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    total: int
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("id", "prompt", "tenant", "model", "seed", "steps", "depth", "parent_entry_id", "uses", "created", "states")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PARENT_ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    id: str
    prompt: str
    tenant: str
    model: str
    seed: int
    steps: int
    depth: int
    parent_entry_id: str
    uses: int
    created: _timestamp_pb2.Timestamp
    states: _containers.RepeatedCompositeFieldContainer[State]
    def __init__(self, id: _Optional[str] = ..., prompt: _Optional[str] = ..., tenant: _Optional[str] = ..., model: _Optional[str] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., depth: _Optional[int] = ..., parent_entry_id: _Optional[str] = ..., uses: _Optional[int] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., states: _Optional[_Iterable[_Union[State, _Mapping]]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("id", "kind", "step", "bytes", "score", "uses")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    step: int
    bytes: int
    score: float
    uses: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., step: _Optional[int] = ..., bytes: _Optional[int] = ..., score: _Optional[float] = ..., uses: _Optional[int] = ...) -> None: ...

class PurgeRequest(_message.Message):
    __slots__ = ("prompt", "tenant", "model", "all", "entry_id")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    tenant: str
    model: str
    all: bool
    entry_id: str
    def __init__(self, prompt: _Optional[str] = ..., tenant: _Optional[str] = ..., model: _Optional[str] = ..., all: _Optional[bool] = ..., entry_id: _Optional[str] = ...) -> None: ...

class PurgeResponse(_message.Message):
    __slots__ = ("entries", "bytes")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    entries: int
    bytes: int
    def __init__(self, entries: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...
