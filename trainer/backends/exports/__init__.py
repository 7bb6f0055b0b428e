"""One module a form, each with `write(export, aside)`: fills the folder, loads it again, returns what export.json says of that."""
