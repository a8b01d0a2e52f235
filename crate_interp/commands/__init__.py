"""One module a command; all input and output of files that a command does lives here."""
