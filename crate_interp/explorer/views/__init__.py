"""The views of the explorer, a file each."""
