"""What all S3 errors have in common."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
RETRY_SOON: Mapping[str, str] = MappingProxyType({"Retry-After": "1"})


class S3Error(Exception):
    """An answer to the client: HTTP `status`, error `code`, English `message`.

    `fields` are additional XML elements (name to text, in order); `headers` are response headers.
    A subclass's code is its own name unless it states another.
    """

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    message: str = "We encountered an internal error. Please try again."
    default_headers: ClassVar[Mapping[str, str]] = NO_HEADERS

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            cls.code = cls.__name__

    def __init__(
        self,
        message: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **fields: str,
    ) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)
        self.fields = fields
        self.headers = {**self.default_headers, **headers} if headers else self.default_headers

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
