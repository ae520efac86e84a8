"""Programs that tests of trainings run, and kill, as processes of their own."""
