"""Airflow reads its settings when it is imported: a scratch home, and no database."""

from __future__ import annotations

import os
import tempfile

os.environ.update(
    AIRFLOW_HOME=tempfile.mkdtemp(prefix="gust-airflow-home-"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="sqlite://",
    _AIRFLOW_PROCESS_CONTEXT="client",
)
