"""Where files are kept: in a folder, or in object storage with the interface of S3."""

from __future__ import annotations

from .folder import FolderStore, FolderWriter
from .opening import StoreUrlError, default_folder, open_store

__all__ = ["FolderStore", "FolderWriter", "StoreUrlError", "default_folder", "open_store"]
