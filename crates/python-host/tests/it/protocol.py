"""Makes every message of the installed SDK with its own models, and judges what Rust sends back.

``make`` prints, per message and fullness, the frame as the SDK would write it and the body as JSON. ``judge`` reads
frames that Rust wrote, lets the SDK decode them, and compares them with what was made.
"""

import base64
import datetime as dt
import enum
import json
import sys
import types
import typing
import uuid
from pathlib import Path

import msgspec
import pydantic
from airflow.callbacks import callback_requests
from airflow.sdk.execution_time import comms, schema

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
JSON = {"a": [1, "x", None, 1.5, True], "b": {"c": -(2**40)}}


def sample(kind, full):
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is pydantic.JsonValue or kind is typing.Any:
        return JSON if full else None
    if origin is typing.Annotated:
        return sample(args[0], full)
    if origin is typing.Literal:
        return args[-1] if full else args[0]
    if origin in (typing.Union, types.UnionType):
        if not full and type(None) in args:
            return None
        return sample(next(arg for arg in args if arg is not type(None)), full)
    if (
        origin in (list, tuple, set)
        or kind in (list, set)
        or getattr(origin, "__name__", "") in ("Iterable", "Sequence")
    ):
        return [sample(args[0] if args else str, full)]
    if origin is dict or kind is dict:
        return {"key": sample(args[1], full) if args else 1} if full else {}
    if isinstance(kind, type):
        if issubclass(kind, enum.Enum):
            return list(kind)[-1 if full else 0]
        if issubclass(kind, pydantic.BaseModel):
            return make(kind, full)
        if issubclass(kind, bool):
            return full
        if issubclass(kind, dt.timedelta):
            return dt.timedelta(days=1, seconds=7, microseconds=250000)
        if kind is pydantic.AwareDatetime or issubclass(kind, dt.datetime):
            return MOMENT
        for known, value in (
            (int, 7),
            (float, 2.5),
            (str, "text"),
            (uuid.UUID, uuid.UUID(int=9)),
            (Path, Path("/p")),
        ):
            if issubclass(kind, known):
                return value
    raise TypeError(f"no sample of {kind!r}")


def make(model, full):
    if issubclass(model, pydantic.RootModel):
        return model(sample(model.model_fields["root"].annotation, full))
    fields = {
        field.alias or name: sample(field.annotation, full)
        for name, field in model.model_fields.items()
        if name != "type" or typing.get_origin(field.annotation) is not typing.Literal
        if full or field.is_required()
    }
    return model(**fields)


def union(kind):
    return typing.get_args(typing.get_args(kind)[0])


def messages():
    groups = {
        "from_task": union(comms.ToSupervisor),
        "to_task": union(comms.ToTask),
        "callback": (
            callback_requests.TaskCallbackRequest,
            callback_requests.DagCallbackRequest,
            callback_requests.EmailRequest,
        ),
    }
    for group, models in groups.items():
        for model in models:
            for full in (False, True):
                yield group, model, full, make(model, full)


def body(message):
    told = message.model_dump(by_alias=True)
    told.setdefault("type", type(message).__name__)
    return told


def main():
    if sys.argv[1] == "make":
        text = (Path(schema.__file__).parent / "schema.json").read_text()
        defs = json.loads(text)["$defs"]
        kinds = sorted(
            name for name, d in defs.items() if d.get("properties", {}).get("type", {}).get("const") == name
        )
        out = [
            {
                "group": group,
                "kind": model.__name__,
                "full": full,
                "frame": base64.b64encode(
                    bytes(comms._RequestFrame(id=3, body=message.model_dump()).as_bytes())
                ).decode(),
                "body": json.loads(
                    msgspec.json.encode(pydantic.TypeAdapter(dict).dump_python(body(message), mode="json"))
                ),
            }
            for group, model, full, message in messages()
        ]
        print(json.dumps({"schema_kinds": kinds, "messages": out}))
        return
    frames = json.load(sys.stdin)
    adapters = {
        "to_task": pydantic.TypeAdapter(comms.ToTask),
        "callback": pydantic.TypeAdapter(callback_requests.CallbackRequest),
    }
    made = {(group, model.__name__, full): message for group, model, full, message in messages()}
    wrong = []
    for told in frames:
        frame = base64.b64decode(told["frame"])
        decoded = msgspec.msgpack.decode(frame[4:])[1]
        expected = made[told["group"], told["kind"], told["full"]]
        try:
            read = adapters[told["group"]].validate_python(decoded)
        except pydantic.ValidationError as problem:
            wrong.append(f"{told['kind']}: {problem}")
            continue
        if type(read) is not type(expected) or read.model_dump() != expected.model_dump():
            wrong.append(f"{told['kind']} full={told['full']}: {read!r} instead of {expected!r}")
    print(json.dumps(wrong))


main()
