"""Imports and prebuilt adapters that every child would otherwise pay for itself."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where Airflow's own examples keep the plugins that they need.
EXAMPLE_PLUGINS = "airflow.example_dags.plugins"

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

    A bundle is either a plain folder of DAG files or laid out as ``dags/``, ``plugins/``, ``include/``. In
    the former a ``plugins`` folder is one like any other, as it is in Airflow's DAG folder.
    """
    folders = [path]
    if (path / "dags").is_dir():
        folders += [path / "dags", path / "plugins"]
    for folder in folders:
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))
    if len(folders) > 1 and (path / "plugins").is_dir():
        _use_plugins(path / "plugins")


def _use_plugins(folder: Path) -> None:
    from airflow import settings
    from airflow.sdk import listener

    settings.PLUGINS_FOLDER = str(folder)
    os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(folder)
    _forget_plugins()
    listener.get_listener_manager()


def use_example_plugins() -> None:
    """Register the plugins of Airflow's own examples.

    Airflow does so where it loads its examples; here they may also be copied into somebody's DAG folder. The
    setting is withdrawn again, since it would also bring the examples as a bundle.
    """
    from airflow import plugins_manager

    before = os.environ.get("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "True"
    try:
        _forget_plugins()
        plugins_manager._get_plugins()
    finally:
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = before


def _forget_plugins() -> None:
    from airflow import plugins_manager
    from airflow.sdk import listener
    from airflow.sdk import plugins_manager as sdk_plugins_manager

    for module in (plugins_manager, sdk_plugins_manager, listener):
        for member in vars(module).values():
            if callable(clear := getattr(member, "cache_clear", None)):
                clear()


def quiet() -> None:
    """Zygotes log warnings only: their stderr is the owner's own log, not a task's."""
    logging.getLogger("airflow").setLevel(logging.ERROR)


def loggers_configured_at_once() -> Callable[[], None]:
    """Hold back the clearing of all loggers' caches until the returned function is called.

    Configuring the child's log sets the level of some seventy loggers, and each time clears the caches of all
    hundreds, which costs a sixth of a short task's time and unshares the pages that they lie on.
    """
    manager: Any = logging.Logger.manager
    manager._clear_cache = lambda: None

    def done() -> None:
        del manager._clear_cache
        manager._clear_cache()

    return done


def loud() -> None:
    """Undo :func:`quiet` in a child."""
    logging.getLogger("airflow").setLevel(logging.NOTSET)
