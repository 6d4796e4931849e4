"""Reports: what finished runs say about the paper's tables, and about themselves. Reads folders, never trains.

A page is a `sftn.report.document.Page`; HTML, Markdown and the terminal know nothing but its blocks.
"""
