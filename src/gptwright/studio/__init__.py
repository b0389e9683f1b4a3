"""Web pages: the chat page. They talk to the HTTP API like any client."""
