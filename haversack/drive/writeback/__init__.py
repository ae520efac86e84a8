"""Files written here and not yet on the drive: the journal that survives a crash, and the uploads that empty it."""
