"""OpenAI's routes, and vLLM's two for adapters: what each takes, asks the engine for, and answers."""
