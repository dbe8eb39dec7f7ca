"""Imports and prebuilt adapters that every child would otherwise pay for itself."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

#: Imported once in the base zygote. The last ones are what a task touches lazily on its way.
MODULES = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.supervisor",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.processor",
    "airflow.serialization.serialized_objects",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.definitions.asset.metadata",
    "encodings.idna",
    "getpass",
    "jinja2.ext",
    "psutil",
    "setproctitle",
    "tabulate",
)


def import_all() -> None:
    """Import what children need, and let the lazy parts of the SDK run once."""
    for name in MODULES:
        importlib.import_module(name)
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.log import load_remote_log_handler

    load_remote_log_handler()
    get_listener_manager()
    _share_adapters()


def _share_adapters() -> None:
    """Build the adapters of all messages once: that takes some 10 ms, which each task would pay."""
    import pydantic
    from airflow.sdk.execution_time import comms, task_runner

    original: Any = pydantic.TypeAdapter
    built: dict[Any, Any] = {}

    class Shared:
        def __new__(cls, kind: Any, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs:
                return original(kind, *args, **kwargs)
            try:
                if kind not in built:
                    built[kind] = original(kind)
                return built[kind]
            except TypeError:  # not hashable
                return original(kind)

        def __class_getitem__(cls, _: Any) -> Any:
            return cls

    for module in (comms, task_runner):
        module.TypeAdapter = Shared
    Shared(comms.ToTask)
    Shared(pydantic.JsonValue)


def use_bundle(path: Path, name: str) -> None:
    """Make a bundle's folders importable and its plugins known, as Airflow does with its home folder.

    A bundle is either flat or laid out as ``dags/``, ``plugins/``, ``include/``.
    """
    for folder in (path, path / "dags", path / "plugins"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))
    if (path / "plugins").is_dir():
        _use_plugins(path / "plugins")


def _use_plugins(folder: Path) -> None:
    from airflow import plugins_manager, settings
    from airflow.sdk import listener
    from airflow.sdk import plugins_manager as sdk_plugins_manager
    from airflow.sdk.configuration import conf

    settings.PLUGINS_FOLDER = str(folder)
    if not conf.has_section("core"):
        conf.add_section("core")
    conf.set("core", "plugins_folder", str(folder))
    for module in (plugins_manager, sdk_plugins_manager, listener):
        for member in vars(module).values():
            if callable(clear := getattr(member, "cache_clear", None)):
                clear()
    listener.get_listener_manager()


def quiet() -> None:
    """Zygotes log warnings only: their stderr is the owner's own log, not a task's."""
    logging.getLogger("airflow").setLevel(logging.ERROR)


def loud() -> None:
    """Undo :func:`quiet` in a child."""
    logging.getLogger("airflow").setLevel(logging.NOTSET)
