"""What a service allows, and where it listens."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field

from greysheep.errors import ConfigError

KEY = "GREYSHEEP_API_KEY"
"""Environment variable with the key that clients must send."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServeSettings(BaseModel):
    """Limits of a service. A request beyond one is refused with a line that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the header Host that are answered, beside the loopback's; on any other address all are."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that answer; they share the memory of the weights."""
    max_k: int = Field(500, ge=1, le=100_000)
    """Longest list."""
    max_users: int = Field(1000, ge=1, le=1_000_000)
    """Most users and histories of one call."""
    max_history: int = Field(5000, ge=1, le=1_000_000)
    """Most rows of one history, and most candidates or exclusions."""
    max_body: int = Field(1 << 20, ge=1 << 10, le=1 << 30)
    """Most bytes of a request's body."""
    batch: int = Field(64, ge=1, le=4096)
    """Most requests answered by one call of the model."""
    batch_wait: float = Field(0.001, ge=0, le=1)
    """Seconds that a request may wait for others to be answered with."""
    queue: int = Field(1024, ge=1, le=100_000)
    """Most requests that wait; the next one is told to come again (503)."""
    watch: float = Field(1.0, gt=0, le=3600)
    """Seconds between two looks at the model's folder."""
    body_seconds: float = Field(30.0, gt=0, le=3600)
    """Longest time a body may take to arrive."""
    shutdown_seconds: int = Field(30, ge=1, le=3600)
    """Longest time that running requests are waited for at the end."""
    verify: bool = True
    """Whether the SHA-256 of a model's files is checked when it is read."""

    @property
    def is_open(self) -> bool:
        """Whether it listens where other machines may reach it."""
        return self.host not in LOOPBACK


def api_key() -> bytes | None:
    """The key that requests must bring, from the environment; None where none is set.

    Raises:
        ConfigError: it is set and empty, which would look like a locked door.
    """
    if KEY not in os.environ:
        return None
    key = os.fsencode(os.environ[KEY])
    if not key.strip():
        raise ConfigError(f"the environment variable {KEY} is empty: give it a key, or unset it")
    return key
