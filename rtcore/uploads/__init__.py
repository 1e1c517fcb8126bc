"""Files that clients send in chunks: their protocol, the server's side."""

from .config import FileConfig, Inspect
from .effects import AbandonFile, AppendToFile, FileEffect, FinishFile, KeptFile, OpenFile

__all__ = [
    "AbandonFile",
    "AppendToFile",
    "FileConfig",
    "FileEffect",
    "FinishFile",
    "Inspect",
    "KeptFile",
    "OpenFile",
]
