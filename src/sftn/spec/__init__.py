"""Specifications as plain records without torch: runs, schedules, objectives, execution, and jobs."""
