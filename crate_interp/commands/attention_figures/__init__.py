"""One figure of attention per file; the table is `commands.attention_figure.FIGURES`."""
