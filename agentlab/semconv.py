"""The attribute names of OpenTelemetry's GenAI conventions that traces use, in one place, and the version they are of.

The conventions are still in development: a name is changed here or nowhere. 1.41.0 is the last version that was
published with the other conventions, before those of GenAI went to a repository of their own.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

PREFIX: Final = "gen_ai."
"""What every name begins with."""

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT: Final = "gen_ai.agent.name"
TOOL: Final = "gen_ai.tool.name"
MODEL: Final = "gen_ai.request.model"
TEMPERATURE: Final = "gen_ai.request.temperature"
SEED: Final = "gen_ai.request.seed"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
FINISH: Final = "gen_ai.response.finish_reasons"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

ERROR: Final = "error.type"
"""A name of the general conventions."""

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
"""Values of OPERATION."""

OPENAI: Final = "openai"
"""The value of PROVIDER: it tells the protocol that was spoken, whoever runs the model."""
