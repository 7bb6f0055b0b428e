"""The process on the inference box: OpenAI routes, adapters, hot swap."""
