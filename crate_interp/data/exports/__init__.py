"""One export format per file, named as its file; the table is `data.export.EXPORTS`."""
