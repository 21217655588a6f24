"""The files of the job's run as a rank above 0 sees them: to be read, not to be written."""

from __future__ import annotations

from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


class DroppingRepository(ArtifactRepository):
    """Drops what is logged, instead of filling a node's disk with checkpoints, and reads what is stored."""

    def __init__(self, artifact_uri: str, stored: str, *arguments: Any, **named: Any) -> None:
        super().__init__(artifact_uri, *arguments, **named)
        self._stored = get_artifact_repository(stored, *arguments, **named)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Drop a file."""

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Drop a folder."""

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete nothing."""

    def list_artifacts(self, path: str | None = None) -> Any:
        """What is stored."""
        return self._stored.list_artifacts(path)

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> Any:
        """What is stored."""
        return self._stored.download_artifacts(artifact_path, dst_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._stored._download_file(remote_file_path, local_path)
