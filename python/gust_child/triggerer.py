"""Runs many triggers in one event loop.

The owner sends commands as frames with a negative id. Everything this child says is a request, so that the
owner acknowledges it and triggers' own requests (connections, variables, XCom, states) share the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import traceback
from datetime import datetime
from typing import Any

import greenback
import msgspec
import structlog
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, _RequestFrame, _ResponseFrame
from airflow.sdk.serde import deserialize, serialize
from airflow.triggers.base import BaseTrigger, TriggerEvent

from gust_child.parser import Message

log = structlog.get_logger(logger_name="task")

#: Longer than this without the loop turning is reported, in seconds.
BLOCKED_AFTER_S = 0.5
#: How long a cancelled trigger's ``on_kill`` may take, in seconds.
ON_KILL_LIMIT_S = 30.0
CANCELLED_BY_USER = "user-action"


class AddTrigger(msgspec.Struct, tag="GustAddTrigger", frozen=True):
    """Run this trigger."""

    id: int
    classpath: str
    kwargs: Any = None
    ti: dict[str, Any] | None = None
    timeout_at: datetime | None = None


class CancelTrigger(msgspec.Struct, tag="GustCancelTrigger", frozen=True):
    """Stop this trigger. By a user's act its ``on_kill`` runs; in a handover it must not."""

    id: int
    by_user: bool = True


_commands: msgspec.msgpack.Decoder[AddTrigger | CancelTrigger] = msgspec.msgpack.Decoder(
    AddTrigger | CancelTrigger
)
_head: msgspec.msgpack.Decoder[tuple[int, msgspec.Raw]] = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])


class TriggerComms(CommsDecoder):  # type: ignore[misc]
    """The SDK's socket, shared by many coroutines: replies are told apart by their id."""

    def prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind to the loop that reads the socket."""
        self.__dict__.update(
            loop=loop, loop_thread=threading.get_ident(), waiting={}, write_lock=asyncio.Lock()
        )

    async def asend(self, msg: Any) -> Any:
        """Send a request and await its reply, from whichever loop."""
        loop: asyncio.AbstractEventLoop = self.__dict__["loop"]
        if asyncio.get_running_loop() is not loop:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.asend(msg), loop))
        frame = _RequestFrame(id=next(self.id_counter), body=msg.model_dump())
        waiting: dict[int, asyncio.Future[Any]] = self.__dict__["waiting"]
        reply = waiting[frame.id] = loop.create_future()
        try:
            async with self.__dict__["write_lock"]:
                await loop.sock_sendall(self.socket, frame.as_bytes())
            return self._from_frame(await reply)
        finally:
            waiting.pop(frame.id, None)

    def send(self, msg: Any) -> Any:
        """The blocking form. On the loop's own thread the coroutine is awaited through greenback's portal."""
        if threading.get_ident() == self.__dict__["loop_thread"]:
            return greenback.await_(self.asend(msg))
        return asyncio.run_coroutine_threadsafe(self.asend(msg), self.__dict__["loop"]).result()

    async def read(self) -> AddTrigger | CancelTrigger | None:
        """The next command; replies are handed to who waits for them. None at the owner's end."""
        loop: asyncio.AbstractEventLoop = self.__dict__["loop"]
        while True:
            head = await self._take(loop, 4)
            raw = head and await self._take(loop, int.from_bytes(head, "big"))
            if not raw:
                return None
            if raw[1:2] and raw[1] >= 0xE0:  # a negative id: a command
                return _commands.decode(_head.decode(raw)[1])
            frame: _ResponseFrame = self.resp_decoder.decode(raw)
            reply = self.__dict__["waiting"].get(frame.id)
            if reply is not None and not reply.done():
                reply.set_result(frame)

    async def _take(self, loop: asyncio.AbstractEventLoop, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            chunk = await loop.sock_recv(self.socket, count - len(parts))
            if not chunk:
                return b""
            parts += chunk
        return bytes(parts)


class Runner:
    """The triggers that run now."""

    def __init__(self, comms: TriggerComms) -> None:
        self._comms = comms
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Obey commands until the owner goes; then nothing of this process may live on."""
        watchdog = asyncio.create_task(self._watch_loop())
        try:
            while (command := await self._comms.read()) is not None:
                if isinstance(command, AddTrigger):
                    if command.id not in self._running:
                        self._running[command.id] = asyncio.create_task(self._one(command))
                elif (task := self._running.get(command.id)) is not None:
                    task.cancel(CANCELLED_BY_USER if command.by_user else "handover")
        finally:
            watchdog.cancel()
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel("shutdown")
            if tasks:
                await asyncio.wait(tasks, timeout=0.5)
            os._exit(0)

    async def _one(self, order: AddTrigger) -> None:
        await greenback.ensure_portal()
        structlog.contextvars.bind_contextvars(trigger_id=order.id, **_names(order.ti))
        trigger: BaseTrigger | None = None
        fired = 0
        try:
            kwargs = deserialize(order.kwargs) if order.kwargs else {}
            trigger = import_string(order.classpath)(**kwargs)
            trigger.trigger_id = order.id
            trigger.task_instance = _instance(order.ti)
            async with asyncio.timeout(_seconds_until(order.timeout_at)):
                async for event in trigger.run():
                    fired += 1
                    await self._tell(
                        Message(
                            "GustTriggerEvent",
                            id=order.id,
                            event_type=type(event).__name__,
                            payload=_payload(event),
                            xcoms=getattr(event, "xcoms", None),
                        )
                    )
            if fired == 0:
                await self._fail(order.id, "The trigger ended without an event.")
        except asyncio.CancelledError as reason:
            if trigger is not None and reason.args[:1] == (CANCELLED_BY_USER,):
                await self._on_kill(trigger)
        except TimeoutError as problem:
            timed_out = order.timeout_at is not None and _seconds_until(order.timeout_at) == 0.0
            await self._fail(order.id, _trace(problem), timed_out=timed_out)
        except BaseException as problem:
            await self._fail(order.id, _trace(problem))
        finally:
            if trigger is not None:
                with contextlib.suppress(Exception):
                    await trigger.cleanup()
            self._running.pop(order.id, None)
            with contextlib.suppress(Exception):
                await self._tell(Message("GustTriggerFinished", id=order.id, events=fired))

    async def _on_kill(self, trigger: BaseTrigger) -> None:
        try:
            await asyncio.wait_for(trigger.on_kill(), timeout=ON_KILL_LIMIT_S)
        except Exception:
            log.warning("on_kill of the trigger failed", exc_info=True)

    async def _fail(self, trigger_id: int, trace: str, *, timed_out: bool = False) -> None:
        await self._tell(Message("GustTriggerFailed", id=trigger_id, error=trace, timed_out=timed_out))

    async def _tell(self, message: Message) -> None:
        try:
            await self._comms.asend(message)
        except (TypeError, NotImplementedError, msgspec.ValidationError) as problem:
            # An event that the wire cannot carry is the trigger's failure, not the triggerer's.
            body = message.model_dump()
            await self._comms.asend(
                Message("GustTriggerFailed", id=body["id"], error=_trace(problem), timed_out=False)
            )

    async def _watch_loop(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            late = time.monotonic() - before - 0.1
            if late > BLOCKED_AFTER_S:
                await self._comms.asend(Message("GustLoopBlocked", seconds=late))


def _payload(event: TriggerEvent) -> Any:
    """In serde's form, as it stands under ``event`` in the resumed task's keyword arguments."""
    return serialize(event.payload)


def _names(ti: dict[str, Any] | None) -> dict[str, Any]:
    keys = ("dag_id", "task_id", "run_id", "try_number", "map_index")
    return {key: ti[key] for key in keys if key in ti} if ti else {}


def _instance(ti: dict[str, Any] | None) -> Any:
    if ti is None:
        return None
    from airflow.sdk.api.datamodels._generated import TaskInstance

    return TaskInstance.model_validate(ti)


def _seconds_until(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, moment.timestamp() - time.time())


def _trace(problem: BaseException) -> str:
    return "".join(traceback.format_exception(problem))


def main() -> None:
    """The child's life."""

    async def live() -> None:
        comms = TriggerComms(log=log)
        comms.socket.setblocking(False)
        comms.prepare(asyncio.get_running_loop())
        task_runner.SUPERVISOR_COMMS = comms
        await Runner(comms).run()

    asyncio.run(live())
