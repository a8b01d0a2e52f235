"""One figure of attention a file; the table is `crate_interp.commands.attention_figure.FIGURES`."""
