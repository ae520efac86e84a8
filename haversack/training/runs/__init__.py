"""The record of a run: the log that a training session writes, and the report and the plot made from it."""
