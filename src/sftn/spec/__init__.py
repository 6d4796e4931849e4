"""What is to be done, as plain records that need no torch: runs, schedules, objectives, execution."""
