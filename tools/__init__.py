"""MCP tool servers: one file, one `server`."""
