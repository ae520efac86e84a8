"""Public notebooks, run as they are: which, from where, with what replaced, by which program, and where each stops."""
