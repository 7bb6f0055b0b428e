"""`lorad VERB`. A package is imported only inside the verb that needs it."""
