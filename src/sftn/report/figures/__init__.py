"""Figures of reports and analyses, drawn with matplotlib."""
