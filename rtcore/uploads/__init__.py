"""Files that clients send in chunks: their protocol, the server's side.

`machine` has the machine of all of them, `upload` what is known of each, `commands` what clients say, `outcomes` what
they are told, `effects` what is asked of whoever keeps files, `heads` what may be said of a file, and `config` the
limits.
"""

from __future__ import annotations

from .commands import BeginUpload, CancelUpload, Chunk
from .config import FileConfig, Inspect
from .effects import AbandonFile, AppendToFile, FileEffect, FinishFile, KeptFile, OpenFile
from .heads import bare_filename, check_head, check_type
from .machine import Uploads
from .outcomes import Begun, Cancelled, Completed, Failed, Progressed, UploadEffect
from .upload import Upload

__all__ = [
    "AbandonFile",
    "AppendToFile",
    "BeginUpload",
    "Begun",
    "CancelUpload",
    "Cancelled",
    "Chunk",
    "Completed",
    "Failed",
    "FileConfig",
    "FileEffect",
    "FinishFile",
    "Inspect",
    "KeptFile",
    "OpenFile",
    "Progressed",
    "Upload",
    "UploadEffect",
    "Uploads",
    "bare_filename",
    "check_head",
    "check_type",
]
