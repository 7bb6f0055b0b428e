"""Says what a row means: row types of each spec, spec to messages, chat template, tokens, label masks. No torch."""
