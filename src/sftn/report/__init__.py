"""Reports on tables, studies and single runs, made from finished runs without training anything.

A page is a `sftn.report.document.Page`; the HTML, Markdown and terminal renderers know only its blocks.
"""
