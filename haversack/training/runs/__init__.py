"""What a run did: the log it writes while it trains, and the report and the plot that are made from it."""
