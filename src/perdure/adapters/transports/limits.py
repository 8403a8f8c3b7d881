"""What transports allow unless they are told otherwise, in bytes."""

EXEC_OUTPUT_BYTES = 1 << 20
HTTP_BODY_BYTES = 10 << 20
FILE_BYTES = 256 << 20
INLINE_BYTES = 64 << 10
"""An answer with a longer body names an artifact instead."""
