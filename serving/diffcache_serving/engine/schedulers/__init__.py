"""The noise schedule of a run: which scheduler, from which file, for how many steps."""
