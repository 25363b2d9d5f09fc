"""Trouble below the operations, as S3 errors: the one border where it is translated.

Engine, node and quorum trouble is 503 and worth a retry; nothing of it is the client's fault.
"""

from __future__ import annotations

import logging

from s3gw import errors
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.topology import UnknownProfile
from s3gw.cluster.writer import NotWritten
from s3gw.kv.interface import CommitTooLarge, EngineError, NoSpace
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.content.framing import ContentDamaged

log = logging.getLogger(__name__)

TROUBLE = (
    errors.S3Error,
    EngineError,
    OutcomeUnknown,
    BlobUnreadable,
    NotWritten,
    TooFewNodes,
    UnknownProfile,
    ContentDamaged,
)


def translate(error: BaseException) -> errors.S3Error:
    """The S3 error for one of TROUBLE; InternalError for anything else."""
    match error:
        case errors.S3Error():
            return error
        case NoSpace():
            return errors.InsufficientStorage("The metadata engine is full.")
        case CommitTooLarge():
            return errors.InternalError()
        case ContentDamaged():
            log.error("what is stored is not what was written: %s", error)
            return errors.ServiceUnavailable("What is stored of the object is damaged.")
        case OutcomeUnknown():
            return errors.ServiceUnavailable("The outcome of the request is not known.")
        case UnknownProfile():
            return errors.ServiceUnavailable("A storage profile is not known here yet.")
        case EngineError():
            return errors.ServiceUnavailable("The metadata engine does not answer.")
        case BlobUnreadable() | NotWritten() | TooFewNodes():
            return errors.SlowDown("Too few storage nodes answer at the moment.")
        case _:
            return errors.InternalError()
