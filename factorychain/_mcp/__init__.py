"""Connections to MCP servers: one for each run and server, on the official SDK.

Imported only where `factorychain.mcp.MCPServer` is used, since the SDK is optional.
"""
