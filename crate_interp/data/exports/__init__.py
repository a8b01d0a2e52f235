"""One export format a file, named as its file; the table is `data.export.EXPORTS`."""
