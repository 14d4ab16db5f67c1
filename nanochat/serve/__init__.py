"""A model behind HTTP: worker thread, OpenAI's API, limits, the chat page."""
