"""Jobs: run or resume one, report on it, list stored ones and remove them. Runs in the process of `haversack run`."""
