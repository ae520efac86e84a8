"""Looking after a drive: find and mend what is wrong, spread crowded folders, make many folders, empty the trash."""
