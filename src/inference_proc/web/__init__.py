"""The engine over HTTP and WebSocket. Imports the engine; the engine never imports this."""
